"""A checkpoint for others: without what resuming needs, its weights as float16 where that is asked for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fiber_cli.checkpoints.config import CONFIG_FILE, read_config
from fiber_cli.checkpoints.digests import check, digests_of, files_of, read_digests, write_digests
from fiber_cli.checkpoints.directory import check_name, choose
from fiber_cli.checkpoints.loading import knows_small_letters, saved_tokenizer
from fiber_cli.checkpoints.weights import load_weights
from fiber_cli.checkpoints.words import read_words
from fiber_cli.checkpoints.writing import write_model
from fiber_cli.errors import UserError
from fiber_cli.outputs import DIGESTS, Outputs, exchange, explained, sync


class Exported(NamedTuple):
    """source: the checkpoint that was read; out: the directory that was written; digests: SHA-256 of its files."""

    source: Path
    out: Path
    digests: dict[str, str]


def export(source: str | Path, out: Path, *, half: bool = False, outputs: Outputs | None = None) -> Exported:
    """Write the checkpoint that `directory.choose` finds for `source` as the directory `out`: config.json,
    model.safetensors, tokenizer/, words.txt where it has one, and SHA256SUMS.

    half: weights as float16, which rounds them; loading computes in float32 all the same. `out` is new or empty, or a
    checkpoint without state as fiber wrote it, which is replaced whole at the end; `outputs` may replace any. Raises
    UserError for a place that is none, and for weights that float16 cannot hold.
    """
    outputs = outputs or Outputs()
    checkpoint = choose(source).path
    check_output(out, checkpoint, outputs)
    check(checkpoint)
    config = read_config(checkpoint)
    config = replace(config, small_letters=knows_small_letters(checkpoint, config))
    tokenizer = saved_tokenizer(checkpoint)
    weights = load_weights(checkpoint)
    if half:
        weights = float16(weights)
    with outputs.staging(out.absolute().parent) as staging:
        made = staging / out.name
        made.mkdir()
        write_model(made, config.to_json(), weights, tokenizer, read_words(checkpoint))
        digests = digests_of(made, files_of(made, state=False))
        write_digests(made, digests)
        _put_in_place(made, out)
    return Exported(checkpoint, out, digests)


def check_output(out: Path, checkpoint: Path, outputs: Outputs) -> None:
    """UserError where `out` is no place for an export of `checkpoint`."""
    check_name(out)
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out}: is no folder; name another place")
    for above in (checkpoint.resolve(), *checkpoint.resolve().parents):
        if out.resolve() == above:
            raise UserError(f"{out}: holds the checkpoint that is exported, and would be replaced; name another place")
    outputs.check(out.with_name(DIGESTS), own=True)
    if out.is_dir() and any(out.iterdir()) and not (outputs.force or _is_an_export(out)):
        raise UserError(
            f"{out}: is there already, and is no checkpoint without state as fiber wrote it; name another folder"
        )


def _is_an_export(folder: Path) -> bool:
    """Whether the files of a folder are those of a checkpoint without state, as its list of digests has them."""
    names = files_of(folder, state=False)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if CONFIG_FILE not in names or there != {*names, DIGESTS}:
        return False
    try:
        return read_digests(folder) == digests_of(folder, names)
    except (UserError, OSError):
        return False


def float16(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights rounded to float16, others as they are. Raises UserError for a number that float16 has no place for."""
    halved = {}
    for name, value in weights.items():
        if value.is_floating_point():
            value = value.half()
        if not torch.isfinite(value).all():
            raise UserError(f"{name} has numbers that float16 cannot hold; export it as float32")
        halved[name] = value
    return halved


def _put_in_place(made: Path, out: Path) -> None:
    """Give a whole directory its name."""
    with explained(out):
        for path in made.rglob("*"):
            sync(path)
        exchange(made, out, made.with_name(f"{made.name}-before"))
