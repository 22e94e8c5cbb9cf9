"""Where the samples of a tar shard lie: each is gone through once, from its beginning to its end."""

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from fiber_cli.data.image_formats import SUFFIXES
from fiber_cli.data.shard_files import Blocks, ShardFile
from fiber_cli.errors import WRONG_CONTENT
from fiber_cli.parsing import parse_json
from fiber_cli.text_files import utf8

_BLOCK = 512
#: Bytes that are looked at together behind an end mark.
_ZEROS = 2**20
_OCTAL = re.compile(rb"[0-7]*")
#: Digits of the length of a pax record, and of a size in one.
_MOST_DIGITS = 19
#: Bytes of what is told of a member in front of it, of its name, and of a sample's text or JSON.
_LARGEST_HEADER, _LONGEST_NAME, LARGEST_TEXT = 2**20, 4096, 16 * 2**20
#: Kinds of member that hold a plain file: POSIX, before POSIX, contiguous.
_PLAIN_FILES = (b"0", b"\0", b"7")
#: Hard and symbolic ones.
_LINKS = (b"1", b"2")
#: What tells something of the members behind it: POSIX of the next and of all, GNU the next's name and link.
_ABOUT_THE_NEXT = (b"x", b"g", b"L", b"K")


#: Between the ending of a picture that is left out and that of its sample's picture.
BESIDE = " beside "


class Member(IntEnum):
    """The members of a sample, by which `ShardIndex.locations` is indexed."""

    IMAGE = 0
    TEXT = 1
    JSON = 2


_ENDINGS = {**dict.fromkeys(SUFFIXES, Member.IMAGE), ".txt": Member.TEXT, ".json": Member.JSON}


class ShardIndex(NamedTuple):
    """keys: uint8, the names of n samples, one behind the other; key_ends: int64 (n,), where each ends; locations:
    int64 (n, 3, 2), offset and size of image, text and JSON, offset -1 for none; captions: int32 (n,), how many the
    JSON lists, else 1; left_out: how many members are no part of a sample, by their ending, in JSON as uint8 (m,)."""

    keys: np.ndarray
    key_ends: np.ndarray
    locations: np.ndarray
    captions: np.ndarray
    left_out: np.ndarray

    @property
    def left_out_counts(self) -> "Counter[str]":
        """How many members are no part of a sample, by their ending."""
        return Counter(parse_json(self.left_out.tobytes()))

    def is_of_a_shard(self, size: int) -> bool:
        """Whether the arrays are those of samples in a shard of `size` bytes. ValueError for other texts than JSON."""
        told = parse_json(self.left_out.tobytes())
        is_counted = isinstance(told, dict) and all(isinstance(times, int) for times in told.values())
        return is_counted and are_samples(self.locations, self.captions, self.keys, self.key_ends, size)


def are_samples(
    locations: np.ndarray, captions: np.ndarray, keys: np.ndarray, key_ends: np.ndarray, size: int | np.ndarray
) -> bool:
    """Whether arrays are those of samples as `ShardIndex` has them. size: of the shard, or int64 (n,), of the shards
    that they lie in."""
    count = len(captions)
    if keys.ndim != 1 or keys.dtype != np.uint8 or key_ends.shape != (count,) or key_ends.dtype != np.int64:
        return False
    end_of_keys = int(key_ends[-1]) if count else 0
    if end_of_keys != len(keys):
        return False
    if (np.diff(key_ends, prepend=0) < 0).any():
        return False
    if locations.shape != (count, len(Member), 2) or locations.dtype != np.int64:
        return False
    if captions.shape != (count,) or captions.dtype != np.int32 or (captions < 0).any():
        return False
    offsets, sizes = locations[..., 0], locations[..., 1]
    room = np.broadcast_to(np.asarray(size), (count,))[:, None] - offsets
    return not ((offsets < -1).any() or (sizes < 0).any() or (sizes > room).any())


class _Samples:
    """The samples of a shard as its members come.

    As in webdataset, the key of a sample ends at the first dot of its members' base names, and what follows says which
    of them it is, in either case. Of several pictures of a sample the one whose ending comes first in
    `image_formats.SUFFIXES` is taken; the others, and members with any other ending, are counted in `left_out`.
    """

    def __init__(self) -> None:
        self.locations: dict[str, list[list[int]]] = {}
        self.caption_counts: dict[str, int] = {}
        self.left_out: Counter[str] = Counter()
        self._image_endings: dict[str, str] = {}
        self._seen: set[tuple[str, str]] = set()

    def add(self, file: Blocks, member: "TarMember") -> None:
        """Take a member in; OSError where the sample has one with its ending already."""
        folder, base = posixpath.split(member.name.removeprefix("./"))
        stem, dot, ending = base.partition(".")
        ending = (dot + ending).lower()
        kind = _ENDINGS.get(ending)
        if member.is_link:
            self.left_out[f"{ending} (a link)"] += 1
            return
        if kind is None or not stem:
            self.left_out[ending or "no ending"] += 1
            return
        key = posixpath.join(folder, stem)
        if (key, ending) in self._seen:
            raise OSError(f"a second {ending[1:]} of sample {key} at byte {member.offset - _BLOCK}")
        self._seen.add((key, ending))
        if kind is Member.IMAGE and not self._is_preferred_image(key, ending):
            return
        sample = self.locations.setdefault(key, [[-1, 0], [-1, 0], [-1, 0]])
        sample[kind] = [member.offset, member.size]
        if kind is Member.JSON:
            is_read = member.size <= LARGEST_TEXT
            described = file.read(member.size, member.offset) if is_read else b""
            self.caption_counts[key] = _count_captions(described)

    def _is_preferred_image(self, key: str, ending: str) -> bool:
        """Whether a picture is the sample's, as far as is known; the other one, if there is, is left out."""
        earlier = self._image_endings.get(key)
        if earlier is None:
            self._image_endings[key] = ending
            return True
        first, second = sorted((earlier, ending), key=SUFFIXES.index)
        self._image_endings[key] = first
        self.left_out[f"{second}{BESIDE}{first}"] += 1
        return first == ending

    def index(self) -> ShardIndex:
        keys = [key.encode("utf-8", "surrogateescape") for key in self.locations]
        key_ends = np.cumsum([len(key) for key in keys], dtype=np.int64)
        captions = [self.caption_counts.get(key, 1) for key in self.locations]
        offsets_and_sizes = np.array(list(self.locations.values()), dtype=np.int64)
        left_out = json.dumps(self.left_out).encode()
        return ShardIndex(
            keys=np.frombuffer(b"".join(keys), dtype=np.uint8),
            key_ends=key_ends,
            locations=offsets_and_sizes.reshape(-1, len(Member), 2),
            captions=np.array(captions, dtype=np.int32),
            left_out=np.frombuffer(left_out, dtype=np.uint8),
        )


def read_index(shard: ShardFile) -> ShardIndex:
    """The index of a tar; OSError with the place of what is wrong."""
    samples = _Samples()
    blocks = Blocks(shard)
    for member in members(blocks, shard.size()):
        samples.add(blocks, member)
    return samples.index()


def _count_captions(described: bytes) -> int:
    """How many captions a sample's JSON lists; 1 where it has no such list."""
    try:
        text = utf8(described)
        return len(parse_json(text)["captions"]) if b'"captions"' in text else 1
    except WRONG_CONTENT:
        return 1  # reported as a bad sample when it is used


class TarMember(NamedTuple):
    """A plain file of a tar: where its content begins, and its size, in bytes; or a link, which has none."""

    name: str
    offset: int
    size: int
    is_link: bool = False


def members(file: Blocks, total: int) -> Iterator[TarMember]:
    """The plain files and the links of a tar of `total` bytes; OSError with the place where it is damaged.

    Own code because `tarfile` takes a damaged header for the archive's end, and needs five times as long.
    """
    position = 0
    long_name: bytes | None = None
    long_size: int | None = None
    while True:
        header = file.read(_BLOCK, position)
        if len(header) < _BLOCK:
            raise OSError(f"cut short: the end mark is missing at byte {position}")
        if not any(header):
            following = _end_of_zeros(file, position, total)
            if following is None or not _is_header(file.read(_BLOCK, following)):
                return
            position = following  # another tar that was put behind this one
            continue
        size = _content_size(header, position)
        content = position + _BLOCK
        kind = header[156:157]
        if long_size is not None and kind not in _ABOUT_THE_NEXT:
            size = long_size
        if content + size > total:
            raise OSError(f"cut short: member at byte {position} ends at {content + size} of {total}")
        if kind in (b"x", b"L") and size > _LARGEST_HEADER:
            raise OSError(f"{size:,} bytes about one member at byte {position}")
        if kind == b"x":  # POSIX: records `length key=value` about the next member
            records = _pax_records(file.read(size, content), position)
            long_name = records.get(b"path", long_name)
            long_size = _pax_size(records, position)
        elif kind == b"L":  # GNU: the next member's name
            long_name = file.read(size, content).rstrip(b"\0")
        elif kind not in _ABOUT_THE_NEXT:  # a file, a folder or a link
            name = long_name or _short_name(header)
            if len(name) > _LONGEST_NAME:
                raise OSError(f"a name of {len(name):,} bytes at byte {position}")
            if kind in _PLAIN_FILES or kind in _LINKS:
                decoded = name.decode("utf-8", "surrogateescape")
                yield TarMember(decoded, content, size, is_link=kind in _LINKS)
            long_name = long_size = None
        blocks = -(-size // _BLOCK)
        position = content + blocks * _BLOCK


def _end_of_zeros(file: Blocks, position: int, total: int) -> int | None:
    """The place of the next block that is not all zeros; None where there is none."""
    while position < total:
        content = file.read(min(_ZEROS, total - position), position)
        if not content:
            return None
        zeros = len(content) - len(content.lstrip(b"\0"))
        if zeros < len(content):
            return position + zeros // _BLOCK * _BLOCK
        position += len(content)
    return None


def _is_header(block: bytes) -> bool:
    """Whether a block behind an end mark begins another tar; what else is there tar programs pass over."""
    if len(block) < _BLOCK:
        return False
    if block[257:262] == b"ustar":
        return True
    try:
        _content_size(block, 0)
    except OSError:
        return False
    return True


def _content_size(header: bytes, position: int) -> int:
    """The size of a member's content; OSError where its header's checksum is wrong."""
    try:
        checksum = _octal(header[148:156])
        size = _size(header[124:136])
    except ValueError:
        checksum = size = -1
    # The sum takes the checksum's own eight bytes as spaces.
    if checksum != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        gzip = header.startswith(b"\x1f\x8b")
        raise OSError("gzip-compressed, unpack it" if gzip else f"no tar header at byte {position}")
    if size < 0:
        raise OSError(f"a member of a negative size at byte {position}")
    return size


def _size(field: bytes) -> int:
    """A size: octal, or as GNU's tar has those of 8 GiB and more, a number of the bytes behind the first."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return -1 if field[0] == 0xFF else _octal(field)


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not _OCTAL.fullmatch(digits):
        raise ValueError(f"{digits!r} is no octal number")
    return int(digits or b"0", 8)


def _pax_records(content: bytes, position: int) -> dict[bytes, bytes]:
    """The values of records `length key=value\\n` by their keys; OSError where they are none."""
    values = {}
    start = 0
    while start < len(content):
        length, _, _ = content[start : start + _MOST_DIGITS].partition(b" ")
        end = start + int(length) if length.isdigit() else start
        record = content[start + len(length) + 1 : end]
        if not record.endswith(b"\n") or end > len(content):
            raise OSError(f"damaged pax records at byte {position}")
        key, _, value = record[:-1].partition(b"=")
        values[key] = value
        start = end
    return values


def _pax_size(records: dict[bytes, bytes], position: int) -> int | None:
    """The size of the next member, where its records tell it."""
    size = records.get(b"size")
    if size is None:
        return None
    if not size.isdigit() or len(size) > _MOST_DIGITS:
        raise OSError(f"a member of the size {size[:_MOST_DIGITS]!r} at byte {position}")
    return int(size)


def _short_name(header: bytes) -> bytes:
    """The name in a member's own header."""
    name = header[:100].split(b"\0", 1)[0]
    prefix = b""
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
    return b"/".join(piece for piece in (prefix, name) if piece)
