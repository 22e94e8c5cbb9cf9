"""Where the samples of a tar shard lie, found once and kept.

Each shard is gone through once, header by header, and the places of its samples are kept in
`$XDG_CACHE_HOME/fiber/shards`. From then on any order, resuming in the middle, and any number of ranks and
workers work as with a folder of images.
"""

import hashlib
import io
import json
import os
import posixpath
import re
import threading
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fiber_cli.characters import one_line
from fiber_cli.data.image_formats import SUFFIXES
from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.outputs import replace
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import check_regular
from fiber_cli.text_files import utf8

_BLOCK = 512
_MAX_THREADS = 16
#: Held while a file is read from a place in it, where the two cannot be one call.
_SEEKING = threading.Lock()
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
    """keys: (n,) bytes; locations: int64 (n, 3, 2), offset and size of image, text and JSON, offset -1 for none;
    captions: int32 (n,), how many the JSON lists, else 1; left_out: how many members are no part of a sample, by their
    ending, in JSON as (m,) bytes."""

    keys: np.ndarray
    locations: np.ndarray
    captions: np.ndarray
    left_out: np.ndarray

    @property
    def left_out_counts(self) -> "Counter[str]":
        """How many members are no part of a sample, by their ending."""
        return Counter(parse_json(self.left_out.tobytes()))


def index_shards(paths: list[str]) -> list[ShardIndex]:
    """The index of each shard. Raises `UserError` naming every shard that is cut short or damaged, with the place."""
    damaged = []

    def index(path: str) -> ShardIndex | None:
        try:
            return _cached_index(path)
        except OSError as error:
            damaged.append(f"{path}: {error.strerror or error}")
            return None

    with ThreadPoolExecutor(min(_MAX_THREADS, len(paths))) as pool:  # reading headers waits for the disk
        progress = tqdm(pool.map(index, paths), "reading shards", len(paths), delay=2, disable=None)
        shards = [shard for shard in progress if shard is not None]
    if damaged:
        raise UserError(
            f"{len(damaged)} of {len(paths)} shards cannot be used; fetch them again or leave them out:",
            *sorted(damaged),
        )
    return shards


def _cached_index(path: str) -> ShardIndex:
    check_regular(path)
    state = os.stat(path)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fiber", "shards")
    identity = f"2|{os.path.abspath(path)}|{state.st_size}|{state.st_mtime_ns}"
    digest = hashlib.sha256(os.fsencode(identity)).hexdigest()
    cache = folder / f"{digest[:32]}.npz"
    try:
        return _read_cache(cache, state.st_size)
    except (*WRONG_CONTENT, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error):
        pass  # not there yet, damaged, or written by a process that was killed: made again from the shard
    index = _read_index(path, state.st_size)
    try:
        _write_index(cache, index)
    except OSError as error:
        warnings.warn(
            one_line(f"{folder}: cannot keep the index of shards between runs: {error.strerror}"), stacklevel=2
        )
    return index


def _read_cache(cache: Path, size: int) -> ShardIndex:
    """The index of a shard of `size` bytes as it was kept. Raises ValueError where it is none of such a shard, and what
    numpy and zipfile raise for what is damaged."""
    with zipfile.ZipFile(cache) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("compressed arrays, of any size")
    with np.load(cache, allow_pickle=False) as stored:
        index = ShardIndex(stored["keys"], stored["places"], stored["captions"], stored["left_out"])
    if not _is_of_a_shard(index, size):
        raise ValueError("no index of this shard")
    return index


def _is_of_a_shard(index: ShardIndex, size: int) -> bool:
    """Whether the arrays are those of samples in a shard of `size` bytes."""
    count = len(index.keys)
    if index.keys.shape != (count,) or index.keys.dtype.kind != "S":
        return False
    if index.locations.shape != (count, len(Member), 2) or index.locations.dtype != np.int64:
        return False
    if index.captions.shape != (count,) or index.captions.dtype != np.int32 or (index.captions < 0).any():
        return False
    if index.left_out.ndim != 1 or index.left_out.dtype != np.uint8:
        return False
    offsets, sizes = index.locations[..., 0], index.locations[..., 1]
    if (offsets < -1).any() or (sizes < 0).any() or (sizes > size - offsets).any():
        return False
    told = parse_json(index.left_out.tobytes())
    return isinstance(told, dict) and all(isinstance(times, int) for times in told.values())


def _write_index(cache: Path, index: ShardIndex) -> None:
    """Under a temporary name, so that other processes never read half of it."""
    content = io.BytesIO()
    np.savez(content, keys=index.keys, places=index.locations, captions=index.captions, left_out=index.left_out)
    cache.parent.mkdir(parents=True, exist_ok=True)
    replace(cache, content.getvalue())


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

    def add(self, file: FileIO, member: "TarMember") -> None:
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
            described = read_at(file, member.size, member.offset) if is_read else b""
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
        captions = [self.caption_counts.get(key, 1) for key in self.locations]
        offsets_and_sizes = np.array(list(self.locations.values()), dtype=np.int64)
        left_out = json.dumps(self.left_out).encode()
        return ShardIndex(
            keys=np.array(keys, dtype=bytes),
            locations=offsets_and_sizes.reshape(-1, len(Member), 2),
            captions=np.array(captions, dtype=np.int32),
            left_out=np.frombuffer(left_out, dtype=np.uint8),
        )


def _read_index(path: str, size: int) -> ShardIndex:
    """The index of a tar of `size` bytes; OSError with the place of what is wrong."""
    samples = _Samples()
    with open(path, "rb", buffering=0) as file:
        for member in members(file, size):
            samples.add(file, member)
    return samples.index()


def _count_captions(described: bytes) -> int:
    """How many captions a sample's JSON lists; 1 where it has no such list."""
    try:
        text = utf8(described)
        return len(parse_json(text)["captions"]) if b'"captions"' in text else 1
    except WRONG_CONTENT:
        return 1  # reported as a bad sample when it is used


def read_at(file: FileIO, size: int, offset: int) -> bytes:
    """Up to `size` bytes of a file from a place in it; threads, and processes that were forked, can share the file."""
    if "pread" in vars(os):
        return os.pread(file.fileno(), size, offset)
    with _SEEKING:  # Windows has no pread, and forks no processes
        file.seek(offset)
        return file.read(size)


class TarMember(NamedTuple):
    """A plain file of a tar: where its content begins, and its size, in bytes; or a link, which has none."""

    name: str
    offset: int
    size: int
    is_link: bool = False


def members(file: FileIO, total: int) -> Iterator[TarMember]:
    """The plain files and the links of a tar of `total` bytes; OSError with the place where it is damaged.

    Own code because `tarfile` takes a damaged header for the archive's end, and needs five times as long.
    """
    position = 0
    long_name: bytes | None = None
    long_size: int | None = None
    while True:
        header = read_at(file, _BLOCK, position)
        if len(header) < _BLOCK:
            raise OSError(f"cut short: the end mark is missing at byte {position}")
        if not any(header):
            return
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
            records = _pax_records(read_at(file, size, content), position)
            long_name = records.get(b"path", long_name)
            long_size = _pax_size(records, position)
        elif kind == b"L":  # GNU: the next member's name
            long_name = read_at(file, size, content).rstrip(b"\0")
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
