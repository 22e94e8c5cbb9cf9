"""Indexes of a folder of pictures whose arrays and headers do not fit."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.hostile import Hostile, Make
from benchmarks.faults.stock import Stock, copy


def index_of(header: object, features: bytes, shape: list[int]) -> bytes:
    """A safetensors file in the form of an index, by its metadata and its one array."""
    described = {
        "__metadata__": {"fiber": json.dumps(header)},
        "features": {"dtype": "F32", "shape": shape, "data_offsets": [0, len(features)]},
    }
    text = json.dumps(described).encode()
    return struct.pack("<Q", len(text)) + text + features


def _index(change: Callable[[dict[str, object], bytes, list[int]], bytes]) -> Make:
    """An index of the folder, made by the program and then changed."""

    def make(stock: Stock, folder: Path) -> list[object]:
        pictures = copy(stock.pictures(), folder)
        words: list[object] = ["rerank", "--images", pictures, "--query", "a star", "--index", folder / "i.safetensors"]
        words += ["--checkpoint", stock.run("coarse"), "--workers", "0"]
        stock.program.run(*words, cwd=folder)
        raw = (folder / "i.safetensors").read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        described = json.loads(raw[8 : 8 + length])
        header = json.loads(described["__metadata__"]["fiber"])
        array = described["features"]
        first, last = array["data_offsets"]
        data = raw[8 + length :]
        (folder / "i.safetensors").write_bytes(change(header, data[first:last], array["shape"]))
        return words

    return make


INDEXES: dict[str, Callable[[dict[str, object], bytes, list[int]], bytes]] = {
    "features of another width": lambda header, data, shape: index_of(header, data[: 4 * shape[0]], [shape[0], 1]),
    "features that are not finite": lambda header, data, shape: index_of(
        header, struct.pack("<f", float("nan")) * (len(data) // 4), shape
    ),
    "infinite features": lambda header, data, shape: index_of(
        header, struct.pack("<f", float("inf")) * (len(data) // 4), shape
    ),
    "fewer rows than pictures": lambda header, data, shape: index_of(
        header, data[: len(data) // shape[0]], [1, shape[1]]
    ),
    "one long row": lambda header, data, shape: index_of(header, data, [len(data) // 4]),
    "stamps of text": lambda header, data, shape: index_of(
        header | {"images": [["0.png", "many", "late"]] * shape[0]}, data, shape
    ),
    "no list of pictures": lambda header, data, shape: index_of(header | {"images": {"a": 1}}, data, shape),
    "the header of a list": lambda header, data, shape: index_of([1, 2], data, shape),
}


def hostile() -> list[Hostile]:
    made = []
    for what, change in INDEXES.items():
        made.append(Hostile(11, f"rerank: the index has {what}", _index(change), "i.safetensors"))
    return made
