"""WebDataset tar shards as img2dataset writes them, with random access.

Each shard is gone through once, header by header, and the places of its samples are kept in
`$XDG_CACHE_HOME/fiber/shards`. From then on any order, resuming in the middle, and any number of ranks and
workers work as with a folder of images.
"""

import hashlib
import json
import os
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import escape, glob
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from fiber_cli.data.images import MAX_PIXELS, open_image
from fiber_cli.data.source import BadSample, Source
from fiber_cli.errors import UserError

_BLOCK = 512
_PARTS = {"jpg": 0, "jpeg": 0, "png": 0, "webp": 0, "txt": 1, "json": 2}
_WINDOW = 16  # shards among whose samples the order is shuffled
_OPEN_FILES = 64


class WebDatasetSource(Source):
    """The samples of tar shards: members with one stem make a sample, `.jpg`, `.png` or `.webp` its image.

    shards: a folder, a path with `*` or `{00000..00331}`, or a list of these. Captions are the list
    `captions` of the `.json` if it has one, else the `.txt`, else `caption` of the `.json`. A sample without
    image raises `BadSample` when used, one without text has no captions. Raises `UserError` where no shard
    is found, and naming every shard that is cut short or damaged, with the place.
    """

    max_pixels = MAX_PIXELS

    def __init__(self, shards: str | Sequence[str]):
        self.paths = find_shards(shards)
        self.name = Path(self.paths[0]).absolute().parent.name
        self._shards = _index_all(self.paths)
        self._ends = np.cumsum([len(shard["keys"]) for shard in self._shards])
        self._open: OrderedDict[int, object] = OrderedDict()
        if not len(self):
            raise UserError(f"{shards}: no sample in {len(self.paths)} shards; .jpg and .txt are needed")

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_open": OrderedDict()}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Shards in random order; samples shuffled within every 16 shards that follow one another."""
        shards = np.split(np.arange(len(self)), self._ends[:-1])
        order = rng.permutation(len(shards))
        windows = (order[first : first + _WINDOW] for first in range(0, len(order), _WINDOW))
        return np.concatenate([rng.permutation(np.concatenate([shards[s] for s in window])) for window in windows])

    def key(self, i: int) -> str:
        shard, row = self._locate(i)
        return f"{Path(self.paths[shard]).stem}/{self._shards[shard]['keys'][row].decode()}"

    def caption_count(self, i: int) -> int:
        shard, row = self._locate(i)
        return int(self._shards[shard]["captions"][row])

    def captions(self, i: int) -> tuple[str, ...]:
        try:
            described = json.loads(self._read(i, 2) or b"{}")
            captions = described.get("captions")
            if not isinstance(captions, list) or not captions:
                plain = self._read(i, 1)
                captions = [described.get("caption") or "" if plain is None else plain.decode()]
            return tuple(text for caption in captions if (text := caption.strip()))
        except (ValueError, AttributeError, TypeError) as error:
            raise BadSample(f"unreadable text: {error}") from None

    def image(self, i: int, at_least: int = 0) -> Image.Image:
        encoded = self._read(i, 0)
        if encoded is None:
            raise BadSample("the shard has no image for this text")
        return open_image(encoded, self.max_pixels, at_least=at_least)

    def _locate(self, i: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._ends, i, side="right"))
        return shard, int(i - self._ends[shard] + len(self._shards[shard]["keys"]))

    def _read(self, i: int, part: int) -> bytes | None:
        shard, row = self._locate(i)
        offset, size = self._shards[shard]["places"][row, part].tolist()
        if offset < 0:
            return None
        try:
            if shard not in self._open:
                self._open[shard] = open(self.paths[shard], "rb", buffering=0)  # noqa: SIM115
                if len(self._open) > _OPEN_FILES:
                    self._open.popitem(last=False)[1].close()
            self._open.move_to_end(shard)
            # pread leaves the file position alone, which forked workers share.
            content = os.pread(self._open[shard].fileno(), size, offset)
        except OSError as error:
            raise BadSample(f"{self.paths[shard]}: {error.strerror}") from None
        if len(content) < size:
            raise BadSample(f"{self.paths[shard]}: became shorter since the run started")
        return content


def find_shards(shards: str | Sequence[str]) -> list[str]:
    """The paths behind folders, globs and brace patterns; `UserError` where one of them finds no file."""
    given = [shards] if isinstance(shards, (str, Path)) else shards
    found, missing = [], []
    for pattern in (expanded for one in given for expanded in expand_braces(str(one))):
        wide = os.path.join(escape(pattern), "*.tar") if os.path.isdir(pattern) else pattern
        names = [pattern] if os.path.isfile(pattern) else sorted(glob(wide))
        found += names
        missing += [] if names else [pattern]
    if missing or not found:
        raise UserError(
            f"no tar shards at {', '.join(missing) or shards}; "
            "give a folder, a glob or a path with a range such as {00000..00331}"
        )
    return list(dict.fromkeys(found))


def expand_braces(pattern: str) -> list[str]:
    """`a{08..10}` to a08, a09, a10; `{x,y}` to x, y; any number of groups, not nested."""
    group = re.search(r"\{([^{}]*)\}", pattern)
    if not group:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", group[1])
    if span:
        low, high = span.groups()
        choices = [f"{n:0{len(low)}d}" for n in range(int(low), int(high) + 1)]
    else:
        choices = group[1].split(",")
    tails = expand_braces(pattern[group.end() :])
    return [pattern[: group.start()] + choice + tail for choice in choices for tail in tails]


def _index_all(paths: list[str]) -> list[dict[str, np.ndarray]]:
    damaged = []

    def index(path: str) -> dict[str, np.ndarray] | None:
        try:
            return _cached_index(path)
        except OSError as error:
            damaged.append(f"{path}: {error.strerror or error}")

    with ThreadPoolExecutor(min(16, len(paths))) as pool:  # reading headers waits for the disk
        shards = list(tqdm(pool.map(index, paths), "reading shards", len(paths), delay=2, disable=None))
    if damaged:
        raise UserError(
            f"{len(damaged)} of {len(paths)} shards cannot be used; fetch them again or leave them out:\n  "
            + "\n  ".join(sorted(damaged))
        )
    return shards


def _cached_index(path: str) -> dict[str, np.ndarray]:
    """keys: (n,) bytes; places: int64 (n, 3, 2), offset and size of image, text and JSON, offset -1 for none;
    captions: (n,) how many the JSON lists, else 1."""
    state = os.stat(path)
    identity = f"1|{os.path.abspath(path)}|{state.st_size}|{state.st_mtime_ns}"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fiber", "shards")
    cache = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npz"
    try:
        with np.load(cache) as stored:
            return {name: stored[name] for name in ("keys", "places", "captions")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # not there yet, or written by a process that was killed: made again from the shard
    index = _read_index(path, state.st_size)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(f".{os.getpid()}.tmp")
        with open(partial, "wb") as file:
            np.savez(file, **index)
        os.replace(partial, cache)
    except OSError as error:
        warnings.warn(f"{folder}: cannot keep the index of shards between runs: {error}", stacklevel=2)
    return index


def _read_index(path: str, size: int) -> dict[str, np.ndarray]:
    places: dict[str, list[list[int]]] = {}
    listed: dict[str, int] = {}
    with open(path, "rb", buffering=0) as file:
        for name, offset, length in _members(file.fileno(), size):
            folder, base = os.path.split(name.removeprefix("./"))
            stem, _, ending = base.partition(".")
            part = _PARTS.get(ending.lower())
            if part is None or not stem:
                continue
            key = os.path.join(folder, stem)
            sample = places.setdefault(key, [[-1, 0], [-1, 0], [-1, 0]])
            if sample[part][0] >= 0:
                raise OSError(f"a second {ending} of sample {key} at byte {offset - _BLOCK}")
            sample[part] = [offset, length]
            if part == 2 and b'"captions"' in (content := os.pread(file.fileno(), length, offset)):
                try:
                    listed[key] = len(json.loads(content)["captions"])
                except (ValueError, KeyError, TypeError):
                    pass  # reported as a bad sample when it is used
    return {
        "keys": np.array([key.encode() for key in places], dtype=bytes),
        "places": np.array(list(places.values()), dtype=np.int64).reshape(-1, 3, 2),
        "captions": np.array([listed.get(key, 1) for key in places], dtype=np.int32),
    }


def _members(fd: int, total: int) -> Iterator[tuple[str, int, int]]:
    """(name, offset of the content, its size) of the plain files of a tar of `total` bytes.

    Own code because `tarfile` takes a damaged header for the archive's end, and needs five times as long.
    """
    at, long_name = 0, None
    while True:
        header = os.pread(fd, _BLOCK, at)
        if len(header) < _BLOCK:
            raise OSError(f"cut short: the end mark is missing at byte {at}")
        if not any(header):
            return
        try:
            checksum, size = (int(header[a:b].strip(b" \0") or b"0", 8) for a, b in ((148, 156), (124, 136)))
        except ValueError:
            checksum = -1
        if checksum != sum(header) - sum(header[148:156]) + 256:
            gzip = header[:2] == b"\x1f\x8b"
            raise OSError("gzip-compressed, unpack it" if gzip else f"no tar header at byte {at}")
        kind, content = header[156:157], at + _BLOCK
        if content + size > total:
            raise OSError(f"cut short: member at byte {at} ends at {content + size} of {total}")
        if kind == b"x":  # POSIX: records `length key=value` about the next member
            record = re.search(rb"(?:^|\n)\d+ path=([^\n]*)\n", os.pread(fd, size, content))
            long_name = record[1] if record else long_name
        elif kind == b"L":  # GNU: the next member's name
            long_name = os.pread(fd, size, content).rstrip(b"\0")
        elif kind not in b"gK":  # a file, a folder or a link
            if kind in b"0\0007":
                prefix = header[345:500] if header[257:263] == b"ustar\0" else b""
                short = b"/".join(part.split(b"\0", 1)[0] for part in (prefix, header[:100]) if any(part[:1]))
                yield (long_name or short).decode(errors="replace"), content, size
            long_name = None
        at = content + -(-size // _BLOCK) * _BLOCK
