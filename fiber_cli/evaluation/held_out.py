"""The validation and test sets of the paper's tasks, whose pictures pre-training must not see."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fiber_cli.errors import UserError
from fiber_cli.evaluation.known import KNOWN, Request
from fiber_cli.settings import SourceSettings

#: Data set of `fiber eval` → the kind of its files, and its splits that are no training data of any recipe.
HELD_OUT: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "coco": ("karpathy", ("val", "test")),
    "flickr30k": ("karpathy", ("val", "test")),
    "nocaps": ("nocaps", ("val", "test")),
    "vqav2": ("vqa", ("test",)),
    "nlvr2": ("statements", ("dev", "test")),
    "flickr30k_entities": ("flickr_entities", ("val", "test")),
    "refcoco": ("mdetr", ("val", "testA", "testB")),
    "refcoco+": ("mdetr", ("val", "testA", "testB")),
    "refcocog": ("mdetr", ("val", "test")),
    "lvis": ("coco", ("minival",)),
    "odinw13": ("coco", ("valid", "test")),
}


class HeldOutEntry(NamedTuple):
    """An entry of a recipe that opens a split of a data set."""

    name: str
    split: str
    settings: SourceSettings


def held_out_entries(names: Sequence[str], root: Path) -> tuple[list[HeldOutEntry], list[str]]:
    """The entries of the splits of these data sets below a folder that holds them, and why some cannot be had.

    names: of HELD_OUT, or none for all that are there. Raises `UserError` for a name that is none, and for one that is
    named and cannot be had.
    """
    unknown = [name for name in names if name not in HELD_OUT]
    if unknown:
        raise UserError(f"--against {unknown[0]}: give some of {', '.join(HELD_OUT)}")
    entries: list[HeldOutEntry] = []
    missing: list[str] = []
    for name in names or HELD_OUT:
        kind, splits = HELD_OUT[name]
        for split in splits:
            try:
                data = KNOWN[name].find(Request(name, split, root, kind))
            except UserError as error:
                if names:
                    raise
                missing.append(f"{name} {split}: {error.message}")
                continue
            entries += [HeldOutEntry(name, split, settings) for settings in data.sources]
    return entries, missing
