"""Arrays in a file, in the form of safetensors, which processes map into their memory instead of reading it.

`safetensors` itself copies what it gives to numpy.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save_file

from fiber_cli.data.columns import map_array
from fiber_cli.outputs import sync, temporary_name
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import check_regular

#: The types of arrays as safetensors and as numpy name them.
_TYPES = {
    "BOOL": "|b1",
    "U8": "|u1",
    "I32": "<i4",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
}
_HEADER_BYTES = 8
#: What safetensors writes at most in front of the arrays.
_LARGEST_HEADER = 100_000_000


class MappedFile(NamedTuple):
    """arrays: read-only, by name; metadata: texts by name."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]


def write_mapped(file: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a file so that a kill or a failure leaves the old or the new one. Raises OSError, and SafetensorError for
    what has no room."""
    temporary = temporary_name(file)
    try:
        save_file(dict(arrays), temporary, dict(metadata))
        sync(temporary)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
