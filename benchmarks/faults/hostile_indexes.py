"""Indexes of a folder of pictures whose arrays and headers do not fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.faults.hostile import Hostile, Make
from benchmarks.faults.stock import Stock, copy
from fiber_cli.data.mapped_file import read_mapped, write_arrays

Arrays = dict[str, np.ndarray]


def _index(change: Callable[[Arrays], Arrays], header: str | None = None) -> Make:
    """An index of the folder, made by the program and then changed; header: what it says in place of its own."""

    def make(stock: Stock, folder: Path) -> list[object]:
        pictures = copy(stock.pictures(), folder)
        words: list[object] = ["rerank", "--images", pictures, "--query", "a star", "--index", folder / "i.safetensors"]
        words += ["--checkpoint", stock.run("coarse"), "--workers", "0"]
        stock.program.run(*words, cwd=folder)
        made = read_mapped(folder / "i.safetensors")
        arrays = {name: np.array(array, subok=False) for name, array in made.arrays.items()}
        metadata = made.metadata if header is None else {"fiber": header}
        write_arrays(folder / "changed", change(arrays), metadata)
        (folder / "changed").rename(folder / "i.safetensors")
        return words

    return make


def _narrow(arrays: Arrays) -> Arrays:
    return arrays | {"features": arrays["features"][:, :1]}


def _filled(value: float) -> Callable[[Arrays], Arrays]:
    def change(arrays: Arrays) -> Arrays:
        return arrays | {"features": np.full_like(arrays["features"], value)}

    return change


def _one_row(arrays: Arrays) -> Arrays:
    return arrays | {"features": arrays["features"][:1]}


def _one_long_row(arrays: Arrays) -> Arrays:
    return arrays | {"features": arrays["features"].reshape(-1)}


def _stamps_of_numbers(arrays: Arrays) -> Arrays:
    return arrays | {"stamps": arrays["stamps"] / 2}


def _paths_past_the_end(arrays: Arrays) -> Arrays:
    return arrays | {"path_ends": arrays["path_ends"] + 2**40}


def _paths_of_bytes(arrays: Arrays) -> Arrays:
    return arrays | {"paths": np.full_like(arrays["paths"], 255)}


def _no_paths(arrays: Arrays) -> Arrays:
    return {name: array for name, array in arrays.items() if name != "paths"}


def _same(arrays: Arrays) -> Arrays:
    return arrays


INDEXES: dict[str, Make] = {
    "features of another width": _index(_narrow),
    "features that are not finite": _index(_filled(float("nan"))),
    "infinite features": _index(_filled(float("inf"))),
    "fewer rows than pictures": _index(_one_row),
    "one long row": _index(_one_long_row),
    "stamps that are no whole numbers": _index(_stamps_of_numbers),
    "paths that end nowhere": _index(_paths_past_the_end),
    "paths that are no text": _index(_paths_of_bytes),
    "no paths": _index(_no_paths),
    "the list of pictures of version 0.1 with stamps of text": _index(
        _same, '{"fingerprint": "f", "images": [["0.png", "many", "late"]]}'
    ),
    "no list of pictures": _index(_same, '{"fingerprint": "f", "images": {"a": 1}}'),
    "the header of a list": _index(_same, "[1, 2]"),
}


def hostile() -> list[Hostile]:
    return [Hostile(11, f"rerank: the index has {what}", make, "i.safetensors") for what, make in INDEXES.items()]
