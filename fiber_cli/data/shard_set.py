"""What `fiber data shard` says of the shards in a folder, in a file beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fiber_cli.data.files import expecting, read_json
from fiber_cli.data.values import flag, some_text, whole_number
from fiber_cli.errors import UserError
from fiber_cli.text_files import dump_json

SET_FILE = "fiber-shards.json"
FORM = "fiber shards"


class ShardFile(NamedTuple):
    """A finished shard: how many samples and bytes it has, and its digest; bad: (sample, reason) of those whose picture
    or text could not be read."""

    samples: int
    bytes: int
    sha256: str
    bad: tuple[tuple[str, str], ...] = ()


class ShardSet(NamedTuple):
    """of: what tells the packed source from others; samples: how many it has; shards: name → what is finished."""

    of: Mapping[str, str]
    samples: int
    complete: bool
    shards: Mapping[str, ShardFile]

    def to_json(self) -> str:
        """The text of the file."""
        shards = {name: shard._asdict() for name, shard in self.shards.items()}
        content = {"form": FORM, "complete": self.complete, "samples": self.samples, "of": dict(self.of)}
        return dump_json(content | {"shards": shards}, indent=1) + "\n"


def read_shard_set(file: Path) -> ShardSet:
    """What the file says; `UserError` for one of another form."""
    content = read_json(file, "what fiber data shard wrote")
    with expecting(file, "what fiber data shard wrote"):
        if content["form"] != FORM:
            raise ValueError(f"its form is {content['form']!r}")
        shards = {some_text(name, "a shard"): _shard(entry) for name, entry in content["shards"].items()}
        of = {some_text(name, "a fact"): some_text(value, "a fact") for name, value in content["of"].items()}
        return ShardSet(of, whole_number(content["samples"], "samples"), flag(content["complete"], "complete"), shards)


def _shard(entry: Mapping[str, Any]) -> ShardFile:
    bad = tuple((str(sample), str(reason)) for sample, reason in entry["bad"])
    digest = some_text(entry["sha256"], "sha256")
    return ShardFile(whole_number(entry["samples"], "samples"), whole_number(entry["bytes"], "bytes"), digest, bad)


def is_whole_set(paths: Sequence[str], counts: Sequence[int]) -> bool:
    """Whether the shards, with so many samples each, are all of a set that `fiber data shard` made, in its order.

    Raises `UserError` for shards of a set that is not finished, or that do not have the samples that it had.
    """
    folders = {Path(path).parent for path in paths}
    if len(folders) != 1:
        return False
    file = folders.pop() / SET_FILE
    if not file.is_file():
        return False
    shard_set = read_shard_set(file)
    if not shard_set.complete:
        raise UserError(f"{file}: its shards are not finished; run the same fiber data shard again, it goes on")
    names = [Path(path).name for path in paths]
    for name, count in zip(names, counts, strict=True):
        written = shard_set.shards.get(name)
        if written is not None and written.samples != count:
            raise UserError(
                f"{file.parent / name}: has {count:,} samples, {written.samples:,} were written; "
                "run the same fiber data shard again, it puts the shard right"
            )
    return names == sorted(shard_set.shards)
