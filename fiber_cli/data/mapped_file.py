"""Arrays in a file, in the form of safetensors, which processes map into their memory instead of reading it, and which
is written piece by piece.

`safetensors` itself copies what it gives to numpy and what it is given. Among the metadata stands a CRC-32 of the whole
file, as it is with `NO_CHECKSUM` in its place: what was found out once is not asked again, so that a bit that flips in
it would be believed for ever.
"""

import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fiber_cli.data.columns import OpenFile, map_array
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
CHECKSUM, NO_CHECKSUM = "crc32", "--------"
#: Bytes that are checked at a time.
_CHUNK = 1 << 22
#: What safetensors writes at most in front of the arrays.
_LARGEST_HEADER = 100_000_000


class MappedFile(NamedTuple):
    """arrays: read-only, by name; metadata: texts by name, without the checksum."""

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
    header: dict[str, object] = {"__metadata__": {**metadata, CHECKSUM: NO_CHECKSUM}}
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
    head = len(encoded).to_bytes(_HEADER_BYTES, "little") + encoded
    with file.open("wb") as stream:
        stream.write(head)
        checksum = zlib.crc32(head)
        for name in names:
            checksum = _write(stream, arrays[name], checksum)
        stream.seek(head.index(_written_as(NO_CHECKSUM)))
        stream.write(_written_as(f"{checksum:08x}"))


def _write(stream: BinaryIO, array: np.ndarray | Pieces, checksum: int) -> int:
    """The checksum of what was written before and of this."""
    for piece in array.pieces if isinstance(array, Pieces) else (array,):
        content = np.ascontiguousarray(piece, array.dtype).reshape(-1).view(np.uint8).data
        stream.write(content)
        checksum = zlib.crc32(content, checksum)
    return checksum


def _written_as(checksum: str) -> bytes:
    """How it stands in the header; within another text its quotes would be escaped."""
    return f'"{CHECKSUM}":"{checksum}"'.encode()


class _Header(NamedTuple):
    """The beginning of a file. encoded: as it lies there, behind the bytes that say how long it is; arrays: where each
    lies and what it is; checksum: None in a file that has none."""

    encoded: bytes
    arrays: dict[str, Any]
    metadata: dict[str, str]
    checksum: str | None


def read_mapped(file: Path, *, has_checksum: bool = True) -> MappedFile:
    """The arrays of a file as they lie in it, all of one opening, so that another process may replace it meanwhile. The
    whole file is read once for its checksum. Raises OSError, and one of `WRONG_CONTENT` for a file of another form or
    one that is damaged. has_checksum: False for files of version 0.1, which have none, and of which no damage is
    told."""
    check_regular(file)
    opened = OpenFile(file)
    with open(opened.descriptor, "rb", closefd=False) as stream:
        header = _read_header(stream)
        if header.checksum is not None:
            _check(stream, header.encoded, header.checksum)
        elif has_checksum:
            raise ValueError("it is damaged: it has no checksum")
    return MappedFile(_mapped(opened, header), header.metadata)


def read_metadata(file: Path) -> dict[str, str]:
    """What stands in the header, without a look at the rest: whether it is damaged is not told. Raises as
    `read_mapped`."""
    check_regular(file)
    with file.open("rb") as stream:
        return _read_header(stream).metadata


def _read_header(stream: BinaryIO) -> _Header:
    size = int.from_bytes(stream.read(_HEADER_BYTES), "little")
    if size > _LARGEST_HEADER:
        raise ValueError(f"a header of {size:,} bytes")
    encoded = stream.read(size)
    arrays = parse_json(encoded)
    metadata = {str(name): str(value) for name, value in arrays.pop("__metadata__", {}).items()}
    checksum = metadata.pop(CHECKSUM, None)
    return _Header(encoded, arrays, metadata, checksum)


def _mapped(file: OpenFile, header: _Header) -> dict[str, np.ndarray]:
    first = _HEADER_BYTES + len(header.encoded)
    arrays = {}
    last = 0
    for name, described in header.arrays.items():
        begin, end = described["data_offsets"]
        dtype = np.dtype(_TYPES[described["dtype"]])
        shape = tuple(described["shape"])
        if begin < 0 or end - begin != dtype.itemsize * int(np.prod(shape, dtype=object)):
            raise ValueError(f"{name} has another size than its shape")
        arrays[name] = map_array(file, dtype.str, shape, first + begin)
        last = max(last, end)
    if os.fstat(file.descriptor).st_size != first + last:
        raise ValueError("it is not as long as its header says")
    return arrays


def _check(stream: BinaryIO, encoded: bytes, expected: str) -> None:
    """ValueError where what stands behind the header, or the header itself, is not what was written."""
    unmarked = encoded.replace(_written_as(expected), _written_as(NO_CHECKSUM), 1)
    checksum = zlib.crc32(len(encoded).to_bytes(_HEADER_BYTES, "little") + unmarked)
    for chunk in iter(partial(stream.read, _CHUNK), b""):
        checksum = zlib.crc32(chunk, checksum)
    if f"{checksum:08x}" != expected:
        raise ValueError("it is damaged: its checksum is another one")
