"""Perceptual hashes of pictures: nearly equal ones for copies of a picture in other sizes and qualities.

They are pHash's 64 bits (of the library imagehash): signs of the lowest frequencies of the grey picture. The number of
bits that differ, their distance, is 0 to 4 for copies, and about 32 for two pictures that have nothing in common.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from fiber_cli.data.identity import own_facts
from fiber_cli.data.source import BadSample, ImageSource, Source, StatementSource
from fiber_cli.data.values import whole_number
from fiber_cli.errors import WRONG_CONTENT, optional
from fiber_cli.outputs import replace

FORM = "fiber image hashes"
BITS = 64
#: Bits that may differ between a picture and its copies.
DISTANCE = 4
#: Pixels of the shorter side that a picture is decoded with: four times what pHash looks at.
_AT_LEAST = 128
_VERSION = 1


class ImageHashes(NamedTuple):
    """hashes: uint64 (n,); samples: int64 (n,), the number of each picture's sample; unreadable: how many pictures have
    none."""

    hashes: np.ndarray
    samples: np.ndarray
    unreadable: int


def image_hash(image: Image.Image) -> int:
    """The 64 bits of a picture."""
    imagehash = optional("imagehash", "image hashes need the package imagehash: pip install imagehash")
    bits = imagehash.phash(image).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def source_hashes(source: Source) -> ImageHashes:
    """The hashes of all pictures of a source. They are kept in `$XDG_CACHE_HOME/fiber/image-hashes`, by what tells the
    source from others (its kind, ids, files of annotations, sizes of shards, folder of pictures), so that only pictures
    that could not be read are looked at again. Of several processes one makes them."""
    file = _cache_file(source)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        known = _read_cache(file, len(source))
        missing = [i for i in range(len(source)) if i not in known]
        if missing:
            known |= _hash_samples(source, missing)
            with suppress(OSError):  # without room they are made again next time
                replace(file, _packed(known))
    return _flat(known, len(source))


#: Of each sample whose pictures can all be read, their hashes.
_Known = dict[int, list[int]]


def _hash_samples(source: Source, samples: Sequence[int]) -> _Known:
    hashed: _Known = {}

    def hash_one(i: int) -> None:
        with suppress(BadSample):
            hashed[i] = [image_hash(image) for image in _pictures(source, i)]

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding does not hold the interpreter
        for _ in tqdm(pool.map(hash_one, samples), f"hashing {source.name}", len(samples), delay=2, disable=None):
            pass
    return hashed


def _pictures(source: Source, i: int) -> Sequence[Image.Image]:
    if isinstance(source, StatementSource):
        return source.images(i, _AT_LEAST)
    assert isinstance(source, ImageSource), "sources have one image a sample or several"
    return [source.image(i, _AT_LEAST)]


def _cache_file(source: Source) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fiber", "image-hashes")
    facts = own_facts("source", source)
    images = "" if source.settings is None else str(source.settings.arguments().get("images"))
    identity = json.dumps([_VERSION, facts, images], sort_keys=True)
    return folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npz"


def _read_cache(file: Path, count: int) -> _Known:
    """What is kept of a source of so many samples; nothing where it is not there, damaged, or of another one."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            samples, hashes = stored["samples"], stored["hashes"]
    except (*WRONG_CONTENT, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return {}
    if hashes.dtype != np.uint64 or samples.shape != hashes.shape or (samples >= count).any() or (samples < 0).any():
        return {}
    known: _Known = {}
    for sample, value in zip(samples.tolist(), hashes.tolist(), strict=True):
        known.setdefault(sample, []).append(value)
    return known


def _packed(known: _Known) -> bytes:
    flat = _flat(known, len(known))
    content = BytesIO()
    np.savez(content, samples=flat.samples, hashes=flat.hashes)
    return content.getvalue()


def _flat(known: _Known, count: int) -> ImageHashes:
    samples, hashes = [], []
    for sample in sorted(known):
        for value in known[sample]:
            samples.append(sample)
            hashes.append(value)
    return ImageHashes(np.array(hashes, np.uint64), np.array(samples, np.int64), count - len(known))


class Near(NamedTuple):
    """Pairs of hashes that are near: their numbers int64 (n,) on both sides, and their distances uint8 (n,)."""

    left: np.ndarray
    right: np.ndarray
    distance: np.ndarray


def near(left: np.ndarray, right: np.ndarray, distance: int) -> Near:
    """All pairs of `left` and `right`, uint64, whose bits differ in at most `distance` places, 0 to 63.

    Of `distance` + 1 parts of the bits one at least is the same in such a pair, so only pairs that share a part are
    compared: millions with tens of thousands in seconds.
    """
    pairs: set[tuple[int, int]] = set()
    edges = np.linspace(0, BITS, distance + 2).round().astype(int).tolist()
    for low, high in pairwise(edges):
        for chunk in range(0, len(left), _CHUNK):
            pairs.update(_near_by_part(left[chunk : chunk + _CHUNK], right, distance, low, high, chunk))
    ordered = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    differing = np.bitwise_count(left[ordered[:, 0]] ^ right[ordered[:, 1]])
    return Near(ordered[:, 0], ordered[:, 1], differing)


#: Hashes that are compared at a time: memory.
_CHUNK = 100_000


def _near_by_part(
    left: np.ndarray, right: np.ndarray, distance: int, low: int, high: int, first: int
) -> Sequence[tuple[int, int]]:
    """The near pairs whose bits from `low` to `high` are the same; numbers of `left` count from `first`."""
    mask = np.uint64(((1 << (high - low)) - 1) << low)
    order = np.argsort(right & mask, kind="stable")
    parts = (right & mask)[order]
    begins = np.searchsorted(parts, left & mask, "left")
    counts = np.searchsorted(parts, left & mask, "right") - begins
    of_left = np.repeat(np.arange(len(left)), counts)
    within = np.arange(len(of_left)) - np.repeat(np.cumsum(counts) - counts, counts)
    of_right = order[np.repeat(begins, counts) + within]
    is_near = np.bitwise_count(left[of_left] ^ right[of_right]) <= distance
    return list(zip((of_left[is_near] + first).tolist(), of_right[is_near].tolist(), strict=True))


class HashList(NamedTuple):
    """Hashes of a file, uint64 (n,), the names of their pictures, and how many bits copies may differ in."""

    hashes: np.ndarray
    names: Sequence[str]
    distance: int


def hash_list_json(listed: HashList) -> str:
    """The text of the file that holds the hashes."""
    images = [[name, f"{value:016x}"] for name, value in zip(listed.names, listed.hashes.tolist(), strict=True)]
    head = {"form": FORM, "hash": "phash", "bits": BITS, "distance": listed.distance}
    return json.dumps(head | {"images": images}, indent=0) + "\n"


def read_hash_list(content: Mapping[str, object]) -> HashList:
    """The hashes of the JSON of such a file; raises one of `WRONG_CONTENT` where it is of another form."""
    if content["hash"] != "phash" or content["bits"] != BITS:
        raise ValueError(f"hashes of {content['bits']} bits by {content['hash']}; read are {BITS} bits by phash")
    distance = whole_number(content["distance"], "distance")
    if not 0 <= distance < BITS:
        raise ValueError(f"a distance of {distance}; 0 to {BITS - 1} bits can differ")
    names, hashes = [], []
    for name, value in content["images"]:  # type: ignore[attr-defined]
        names.append(str(name))
        hashes.append(int(value, 16))
    return HashList(np.array(hashes, np.uint64), names, distance)
