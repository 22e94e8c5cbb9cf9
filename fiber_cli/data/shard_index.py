"""Where the samples of shards lie, found once and kept.

Each shard is gone through once, by one of all processes that need it, and what it holds is kept beside the shards or
in the user's cache folder, see `cache_folder`; what all shards of a source hold together is one more file, which all
processes of a machine map into their memory. From then on any order, resuming in the middle, and any number of ranks
and workers work as with a folder of images.
"""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from fiber_cli.characters import one_line
from fiber_cli.data.cache_folder import cache_folders, digest, made_by_one
from fiber_cli.data.mapped_file import MappedFile, read_mapped, write_mapped
from fiber_cli.data.shard_files import ShardState, forget_kept, open_shard, shard_state
from fiber_cli.data.tar import ShardIndex, are_samples, read_index
from fiber_cli.data.threads import map_in_threads
from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.parsing import parse_json
from fiber_cli.remote_paths import is_remote
from fiber_cli.text_files import dump_json

Result = TypeVar("Result")
_MAX_THREADS = 16
#: Of the files that are kept; another one for another content.
_FORM = 4


class ShardTable:
    """The samples of shards, in their order, in arrays.

    ends: int64 (shards,), where the samples of each end; sizes: int64 (shards,), in bytes; locations: int64 (n, 3, 2)
    and captions: int32 (n,) as in `ShardIndex`; unread: how many members of all are no part of a sample, by ending.
    """

    def __init__(self, arrays: dict[str, np.ndarray], unread: Counter[str]):
        self.ends, self.sizes = arrays["ends"], arrays["sizes"]
        self.locations, self.captions = arrays["locations"], arrays["captions"]
        self._keys, self._key_ends = arrays["keys"], arrays["key_ends"]
        self.unread = unread

    @classmethod
    def of(cls, indexes: Sequence[ShardIndex], sizes: Sequence[int]) -> "ShardTable":
        """Of the shards one by one."""
        unread: Counter[str] = Counter()
        key_ends = []
        before = 0
        for index in indexes:
            unread += index.left_out_counts
            key_ends.append(index.key_ends + before)
            before += len(index.keys)
        arrays = {
            "ends": np.cumsum([len(index.captions) for index in indexes]),
            "sizes": np.array(sizes, np.int64),
            "locations": np.concatenate([index.locations for index in indexes]),
            "captions": np.concatenate([index.captions for index in indexes]),
            "keys": np.concatenate([index.keys for index in indexes]),
            "key_ends": np.concatenate(key_ends),
        }
        return cls(arrays, unread)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All of it but `unread`."""
        return {
            "ends": self.ends,
            "sizes": self.sizes,
            "locations": self.locations,
            "captions": self.captions,
            "keys": self._keys,
            "key_ends": self._key_ends,
        }

    @cached_property
    def counts(self) -> list[int]:
        """How many samples each shard has."""
        return [int(count) for count in np.diff(self.ends, prepend=0)]

    def key(self, i: int) -> str:
        """The name of sample i in its shard."""
        start = int(self._key_ends[i - 1]) if i else 0
        return self._keys[start : int(self._key_ends[i])].tobytes().decode("utf-8", "surrogateescape")

    def locate(self, i: int) -> int:
        """The number of the shard of sample i."""
        return int(np.searchsorted(self.ends, i, side="right"))

    def is_consistent(self) -> bool:
        """Whether the arrays are those of samples in shards of these sizes."""
        count = len(self.captions)
        counts = np.diff(self.ends, prepend=0)
        if not len(self.ends) == len(self.sizes) > 0 or int(self.ends[-1]) != count or (counts < 0).any():
            return False
        return are_samples(self.locations, self.captions, self._keys, self._key_ends, np.repeat(self.sizes, counts))


def index_shards(paths: list[str]) -> ShardTable:
    """The samples of shards behind paths, addresses and commands. Raises `UserError` naming every shard that cannot be
    read, is cut short or damaged, with the place."""
    states = _of_all(paths, shard_state, "looking at shards")
    told = [f"{path}|{state.size}|{state.version}" for path, state in zip(paths, states, strict=True)]
    stamp = digest(str(_FORM), *told)
    places = _table_places(paths)
    table = _first_kept(places, stamp, _table)
    if table is not None:
        return table
    state_of = dict(zip(paths, states, strict=True))
    own_order = _from_own(paths)
    indexes = _of_all(own_order, lambda path: _indexed(path, state_of[path]), "reading shards")
    by_path = dict(zip(own_order, indexes, strict=True))
    with made_by_one(places[0]):
        table = _first_kept(places, stamp, _table)
        if table is not None:
            return table
        in_order = [by_path[path] for path in paths]
        table = ShardTable.of([each.members for each in in_order], [each.size for each in in_order])
        _write_table(places[0], table, stamp)
    return _first_kept(places, stamp, _table) or table


def _from_own(paths: list[str]) -> list[str]:
    """The shards in an order that begins elsewhere for each rank, so that ranks seldom wait for one another."""
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and int(world)):
        return paths
    first = len(paths) * int(rank) // int(world) % len(paths)
    return paths[first:] + paths[:first]


def _whole(path: str) -> str:
    return path if is_remote(path) else os.path.abspath(path)


def _places(path: str, name: str) -> list[Path]:
    """Where something about a shard may be kept, the place where it is written first; nothing lies beside addresses."""
    beside = None if is_remote(path) else Path(os.path.abspath(path)).parent
    return [folder / name for folder in cache_folders(beside)]


def _table_places(paths: list[str]) -> list[Path]:
    """Of what all shards hold together."""
    return _places(paths[0], f"shards-{digest(*map(_whole, paths))[:24]}.safetensors")


def _index_places(path: str) -> list[Path]:
    """Of what one holds."""
    return _places(path, f"shards/{digest(_whole(path))[:32]}.safetensors")


def forget_shard(path: str, paths: list[str]) -> None:
    """Have one of the shards behind these paths be read and indexed anew at the next start: it is not what its index
    says, and nothing that is known without reading it may tell."""
    forget_kept(path)
    for place in _table_places(paths) + _index_places(path):
        with suppress(OSError):
            place.unlink()


def _of_all(paths: list[str], read: Callable[[str], Result], what: str) -> list[Result]:
    """What is read of each. Raises `UserError` naming every shard that cannot be used."""
    damaged = []

    def tried(path: str) -> Result | None:
        try:
            return read(path)
        except OSError as error:
            reason = error.strerror or str(error)
            damaged.append(f"{path}: {reason.removeprefix(f'{path}: ')}")
            return None

    found = map_in_threads(tried, paths, _MAX_THREADS)  # reading waits for the disk
    progress = tqdm(found, what, len(paths), delay=2, disable=None)
    results = [each for each in progress if each is not None]
    if damaged:
        raise UserError(
            f"{len(damaged)} of {len(paths)} shards cannot be used; fetch them again or leave them out:",
            *sorted(damaged),
        )
    return results


class _Indexed(NamedTuple):
    """members: where they lie; size: of the shard, in bytes."""

    members: ShardIndex
    size: int


def _indexed(path: str, state: ShardState) -> _Indexed:
    """The index of a shard, as it is kept or as it is found now, once for all processes. Raises OSError."""
    stamp = digest(str(_FORM), _whole(path), str(state.size), state.version)
    places = _index_places(path)
    indexed = _first_kept(places, stamp, _own_index)
    if indexed is not None:
        return indexed
    with made_by_one(places[0]):
        indexed = _first_kept(places, stamp, _own_index)
        if indexed is not None:
            return indexed
        shard = open_shard(path, state)
        try:
            indexed = _Indexed(read_index(shard), shard.size())
        except OSError:
            forget_kept(path)  # so that it is fetched again where it was mended
            raise
        finally:
            shard.close()
        _write(places[0], indexed.members._asdict(), {"stamp": stamp, "size": str(indexed.size)})
    return indexed


def _first_kept(places: list[Path], stamp: str, read: Callable[[MappedFile], Result | None]) -> Result | None:
    """What is read of the first file that was made of the shards as they are and is whole; None where there is none."""
    for place in places:
        try:
            file = read_mapped(place)
            if file.metadata["stamp"] != stamp:
                continue
            content = read(file)
            if content is not None:
                return content
        except (*WRONG_CONTENT, OSError):
            continue
    return None


def _own_index(file: MappedFile) -> _Indexed | None:
    """The index of a shard; None where it is not of a shard of its size."""
    index = ShardIndex(**file.arrays)
    size = int(file.metadata["size"])
    return _Indexed(index, size) if index.is_of_a_shard(size) else None


def _table(file: MappedFile) -> ShardTable | None:
    """The table of all shards; None where its columns do not fit each other."""
    unread = Counter({str(ending): int(count) for ending, count in parse_json(file.metadata["unread"]).items()})
    table = ShardTable(file.arrays, unread)
    return table if table.is_consistent() else None


def _write_table(place: Path, table: ShardTable, stamp: str) -> None:
    _write(place, table.arrays, {"stamp": stamp, "unread": dump_json(table.unread)})


def _write(place: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_mapped(place, arrays, metadata)
    except OSError as error:
        reason = error.strerror or error
        warnings.warn(one_line(f"{place.parent}: cannot keep the index of shards between runs: {reason}"), stacklevel=2)
