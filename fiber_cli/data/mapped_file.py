"""Arrays in a file, in the form of safetensors, which processes map into their memory instead of reading it, and which
is written piece by piece.

`safetensors` itself copies what it gives to numpy and what it is given.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from fiber_cli.data.columns import map_array
from fiber_cli.outputs import sync, temporary_name
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import check_regular

#: The types of arrays as numpy and as safetensors name them.
_NAMES = {
    "|b1": "BOOL",
    "|u1": "U8",
    "<i4": "I32",
    "<i8": "I64",
    "<f2": "F16",
    "<f4": "F32",
    "<f8": "F64",
}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}
_HEADER_BYTES = 8
#: What safetensors writes at most in front of the arrays.
_LARGEST_HEADER = 100_000_000


class MappedFile(NamedTuple):
    """arrays: read-only, by name; metadata: texts by name."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]


class Pieces(NamedTuple):
    """An array that comes piece by piece, along its first dimension."""

    dtype: np.dtype
    shape: tuple[int, ...]
    pieces: Iterable[np.ndarray]


def write_mapped(file: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a file so that a kill or a failure leaves the old or the new one. Raises OSError."""
    temporary = temporary_name(file)
    try:
        write_arrays(temporary, arrays, metadata)
        sync(temporary)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray | Pieces], metadata: Mapping[str, str]) -> None:
    """Write a file. Raises OSError."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    # The largest numbers first, so that all lie at multiples of their size.
    names = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    end = 0
    for name in names:
        array = arrays[name]
        begin = end
        end += array.dtype.itemsize * math.prod(array.shape)
        dtype = _NAMES[array.dtype.str]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with file.open("wb") as stream:
        stream.write(len(encoded).to_bytes(_HEADER_BYTES, "little") + encoded)
        for name in names:
            _write(stream, arrays[name])


def _write(stream: BinaryIO, array: np.ndarray | Pieces) -> None:
    for piece in array.pieces if isinstance(array, Pieces) else (array,):
        stream.write(np.ascontiguousarray(piece, array.dtype).reshape(-1).view(np.uint8).data)


def read_mapped(file: Path) -> MappedFile:
    """The arrays of a file as they lie in it. Raises OSError, and one of `WRONG_CONTENT` for a file of another form."""
    check_regular(file)
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(_HEADER_BYTES), "little")
        if size > _LARGEST_HEADER:
            raise ValueError(f"a header of {size:,} bytes")
        header = parse_json(stream.read(size))
    metadata = header.pop("__metadata__", {})
    arrays = {}
    for name, described in header.items():
        begin, end = described["data_offsets"]
        dtype = np.dtype(_TYPES[described["dtype"]])
        shape = tuple(described["shape"])
        if begin < 0 or end - begin != dtype.itemsize * int(np.prod(shape, dtype=object)):
            raise ValueError(f"{name} has another size than its shape")
        arrays[name] = map_array(file, dtype.str, shape, _HEADER_BYTES + size + begin)
    return MappedFile(arrays, {str(name): str(value) for name, value in metadata.items()})
