"""Sources whose samples lie in tar shards, with random access."""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fiber_cli.data.image_formats import SUFFIXES, count_endings
from fiber_cli.data.images import open_image
from fiber_cli.data.shard_files import ShardFile, open_shard, shard_name
from fiber_cli.data.shard_index import forget_shard, index_shards
from fiber_cli.data.shard_paths import find_shards
from fiber_cli.data.shard_set import is_whole_set
from fiber_cli.data.source import BadSample, ImageSource
from fiber_cli.data.tar import BESIDE, LARGEST_TEXT, Member
from fiber_cli.data.values import text
from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.parsing import parse_json
from fiber_cli.printing import say
from fiber_cli.remote_paths import is_remote

_WINDOW = 16  # shards among whose samples the order is shuffled
_OPEN_FILES = 64
_ANOTHER_SIZE = "has another size than when it was indexed; start again"
#: No format of pictures needs more, which is RGBA of 32 bits.
BYTES_PER_PIXEL = 16


class ShardSource(ImageSource):
    """The samples of tar shards, as webdataset has them: members whose names are one up to the first dot make a sample,
    and what follows the dot says what they are, an ending of `image_formats.SUFFIXES` its image, see `tar`.

    shards: a folder, a path with `*` or `{00000..00331}`, or a list of these. unread_members: how many members are no
    part of a sample, by ending; they are told on standard error. A sample without image raises `BadSample` when used.
    Raises `UserError` where no shard is found, and naming every shard that is cut short or damaged, with the place.
    """

    def __init__(self, shards: str | Sequence[str]):
        self.paths = find_shards(shards)
        first = self.paths[0]
        self.name = shard_name(first) if is_remote(first) else Path(first).absolute().parent.name
        self._table = index_shards(self.paths)
        self._is_whole_set = is_whole_set(self.paths, self._table.counts)
        self._open: OrderedDict[int, ShardFile] = OrderedDict()
        self._changed: set[int] = set()
        self.unread_members = self._table.unread
        told = self._told()
        if not len(self):
            raise UserError(
                f"{shards}: no sample in {len(self.paths)} shards; an image ({', '.join(SUFFIXES[:4])} …) and .txt or "
                f".json are needed{told and '; ' + told}"
            )
        if told and os.environ.get("RANK", "0") == "0":  # one rank is enough
            say(f"left out: {self.name}: {told}")

    def _told(self) -> str:
        """What is left out, in words; empty where nothing is."""
        if not self.unread_members:
            return ""
        told = (
            f"{self.unread_members.total():,} members have the endings {count_endings(self.unread_members.elements())}"
        )
        beside = [ending for ending in self.unread_members if BESIDE in ending]
        if any(ending.count(".") > 1 for ending in self.unread_members.keys() - set(beside)):
            told += "; a sample's name ends at its first dot, as in webdataset: rename what has others"
        if beside:
            told += f"; of several pictures of a sample the first is taken, in the order {', '.join(SUFFIXES)}"
        return told

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def total(self) -> int:
        return int(self._table.ends[-1])

    def shard_sizes(self) -> Iterator[tuple[str, int]]:
        """The name of each shard, with its folder's, or its address or command, and its size in bytes."""
        for path, size in zip(self.paths, self._table.sizes.tolist(), strict=True):
            name = path if is_remote(path) else f"{Path(path).parent.name}/{Path(path).name}"
            yield name, size

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Shards in random order; samples shuffled within every 16 shards that follow one another. Those of whole sets
        that `fiber data shard` made: as of a folder, so that training goes over the same samples in the same order."""
        if self._is_whole_set:
            return rng.permutation(len(self))
        samples = np.split(np.arange(len(self)), self._table.ends[:-1])
        shards = rng.permutation(len(samples))
        windows = []
        for first in range(0, len(shards), _WINDOW):
            window = [samples[shard] for shard in shards[first : first + _WINDOW]]
            windows.append(rng.permutation(np.concatenate(window)))
        return np.concatenate(windows)

    def key(self, i: int) -> str:
        return f"{shard_name(self.paths[self._table.locate(i)])}/{self._table.key(i)}"

    def image_names(self, i: int) -> list[str]:
        """The sample's key, its name in the shard, and what its JSON says of where the picture is from: `url`, and
        `image_names` of shards that `fiber data shard` made."""
        key = self.key(i)
        names = [key, key.partition("/")[2]]
        try:
            described = parse_json(self.content(i, Member.JSON) or b"{}")
            names.extend(text(name, "image_names") for name in described.get("image_names", ()))
            if isinstance(described.get("url"), str):
                names += [described["url"], described["url"].rpartition("/")[2]]
        except (*WRONG_CONTENT, BadSample):
            pass  # a bad sample where its text is read; without names it is known by its key
        return names

    def image(self, i: int, at_least: int = 0) -> Image.Image:
        return open_image(self.encoded_image(i), self.max_pixels, at_least=at_least)

    def encoded_image(self, i: int) -> bytes:
        encoded = self.content(i, Member.IMAGE)
        if encoded is None:
            raise BadSample("the shard has no image for this text")
        return encoded

    def listed_captions(self, i: int) -> int:
        """How many captions the sample's JSON lists, 1 where it lists none; known without reading it."""
        return int(self._table.captions[i])

    def content(self, i: int, member: Member) -> bytes | None:
        """The bytes of a member of sample i, None where it has no such member; raises `BadSample`."""
        shard = self._table.locate(i)
        offset, size = self._table.locations[i, member].tolist()
        if offset < 0:
            return None
        most = BYTES_PER_PIXEL * self.max_pixels + LARGEST_TEXT if member is Member.IMAGE else LARGEST_TEXT
        if size > most:
            raise BadSample(f"its {member.name.lower()} has {size:,} bytes; at most {most:,} are read")
        try:
            content = self._file(shard, i).read(size, offset)
        except OSError as error:
            raise BadSample(f"{self.paths[shard]}: {error.strerror or error}") from None
        if len(content) < size:
            raise BadSample(f"{self.paths[shard]}: became shorter since the run started")
        return content

    def _file(self, shard: int, i: int) -> ShardFile:
        """The shard's file, about to be read for sample i; the one that was used longest ago is closed where too many
        are open. Raises OSError."""
        if shard not in self._open:
            self._open[shard] = self._opened(shard)
            if len(self._open) > _OPEN_FILES:
                _, oldest = self._open.popitem(last=False)
                oldest.close()
        self._open.move_to_end(shard)
        file = self._open[shard]
        offsets, sizes = self._table.locations[i].T
        is_there = offsets >= 0
        file.prepare(int(offsets[is_there].min()), int((offsets + sizes)[is_there].max()))
        return file

    def _opened(self, shard: int) -> ShardFile:
        if shard in self._changed:
            raise OSError(_ANOTHER_SIZE)  # without reading it again for each of its samples
        path = self.paths[shard]
        file = open_shard(path)
        if is_remote(path) and file.size() != int(self._table.sizes[shard]):
            file.close()
            forget_shard(path, self.paths)
            self._changed.add(shard)
            raise OSError(_ANOTHER_SIZE)
        return file
