"""Which samples of training sources show pictures that validation and test sets hold: by their names and by their
hashes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fiber_cli.data.exclude import SAMPLES
from fiber_cli.data.image_hashes import HashList, hash_list_json, near, source_hashes
from fiber_cli.data.image_names import telling_names
from fiber_cli.data.source import Source, sample_id
from fiber_cli.text_files import dump_json

BY_NAME, BY_HASH = "name", "image hash"


class HeldOut(NamedTuple):
    """Pictures that are not to be trained on. by_name: name → sample that has it; hashes: None where none were made."""

    by_name: Mapping[str, str]
    hashes: HashList | None
    unreadable: int

    def hashes_json(self) -> str:
        """The hashes as a file that `exclude` takes."""
        assert self.hashes is not None, "asked for where they were made"
        return hash_list_json(self.hashes)


class Duplicate(NamedTuple):
    """A sample that shows a held-out picture. key: see `Source.key`; by: BY_NAME or BY_HASH; held_out: the sample of
    the validation or test set; distance: bits in which the hashes differ, None of one found by name."""

    key: str
    by: str
    held_out: str
    distance: int | None


def held_out_pictures(sources: Iterable[Source], *, names: bool, hashes: bool, distance: int) -> HeldOut:
    """The pictures of validation and test sets, by their names, their hashes, or both. distance: bits in which copies
    may differ."""
    by_name: dict[str, str] = {}
    values: list[np.ndarray] = []
    samples: list[str] = []
    unreadable = 0
    for source in sources:
        if names:
            _add_names(by_name, source)
        if hashes:
            hashed = source_hashes(source)
            values.append(hashed.hashes)
            samples += [sample_id(source, i) for i in hashed.samples.tolist()]
            unreadable += hashed.unreadable
    if not hashes:
        return HeldOut(by_name, None, 0)
    flat = np.concatenate([*values, np.empty(0, np.uint64)])
    unique, first = np.unique(flat, return_index=True)
    return HeldOut(by_name, HashList(unique, [samples[i] for i in first.tolist()], distance), unreadable)


def _add_names(by_name: dict[str, str], source: Source) -> None:
    for i in range(len(source)):
        for name in telling_names(source.image_names(i)):
            by_name.setdefault(name, sample_id(source, i))


class Found(NamedTuple):
    """What was found in a source; unreadable: pictures that no hash tells of."""

    duplicates: list[Duplicate]
    unreadable: int


def duplicates(source: Source, held_out: HeldOut) -> Found:
    """The samples of a training source that show a held-out picture, in their order, each once: by name where that says
    it, else by the nearest hash."""
    found: dict[int, Duplicate] = {}
    for i in range(len(source)):
        for name in sorted(telling_names(source.image_names(i))):
            if i not in found and name in held_out.by_name:
                found[i] = Duplicate(source.key(i), BY_NAME, held_out.by_name[name], None)
    unreadable = 0
    if held_out.hashes is not None:
        hashed = source_hashes(source)
        unreadable = hashed.unreadable
        pairs = near(hashed.hashes, held_out.hashes.hashes, held_out.hashes.distance)
        for pair in np.argsort(pairs.distance, kind="stable").tolist():
            i = int(hashed.samples[pairs.left[pair]])
            other = held_out.hashes.names[int(pairs.right[pair])]
            if i not in found:
                found[i] = Duplicate(source.key(i), BY_HASH, other, int(pairs.distance[pair]))
    return Found([found[i] for i in sorted(found)], unreadable)


def exclude_json(listed: Sequence[Duplicate]) -> str:
    """The text of a file that `exclude` takes, with the reasons."""
    samples = [each._asdict() for each in listed]
    return dump_json({"form": SAMPLES, "samples": samples}, indent=1) + "\n"
