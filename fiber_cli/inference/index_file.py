"""The file of an index: what the dual encoder says of each picture of a folder.

It is one safetensors file, which processes map into their memory: `features` float32 or float16 (images, D), `stamps`
int64 (images, 2), the size in bytes and time of change in ns of each image, `paths` uint8, their paths below the folder
one behind the other, and `path_ends` int64 (images,); in its header, as JSON under "fiber", the checkpoint's
fingerprint, and a checksum. In files of version 0.1 paths and stamps stand in the header, which 1.5 million of them
fill, and there is no checksum.

Whose index it is its header tells; what is in it, and whether it is damaged, one reading of the whole.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fiber_cli.data.columns import Texts
from fiber_cli.data.mapped_file import Pieces, read_mapped, read_metadata, write_arrays
from fiber_cli.data.values import path_text, text, whole_number
from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.outputs import Outputs
from fiber_cli.parsing import parse_json

#: An index file's beginning, behind the 8 bytes that say how long its header is.
_BEGINNING = b'{"__metadata__":{"fiber":'
#: How much of a fingerprint stands in a file's name.
FINGERPRINT_SHOWN = 12
#: Pictures whose features are looked at or written at a time.
BLOCK = 4096
_TYPES = (np.dtype(np.float32), np.dtype(np.float16))

#: Bytes and time of change (ns) of a file: another stamp means another picture.
Stamp = tuple[int, int]


class Index(NamedTuple):
    """`features`: float32 or float16 (images, D), L2 norm 1; `stamps`: by path below the folder, in the same order;
    `file`: that it was read from, if any."""

    features: np.ndarray
    stamps: dict[str, Stamp]
    file: Path | None = None


class _Stored(NamedTuple):
    """An index file's content; fingerprint: of the checkpoint that made it."""

    content: Index
    fingerprint: str


class DamagedIndex(UserError):
    """Of an index that is not as it was written."""


def begins_as_index(file: Path) -> bool:
    """Whether there is a file that is an index by its beginning, of which a bit may have flipped, or is empty."""
    try:
        with file.open("rb") as stream:
            beginning = stream.read(8 + len(_BEGINNING))[8:]
            is_empty = stream.tell() == 0
    except OSError:
        return False
    if len(beginning) < len(_BEGINNING):
        return is_empty or (beginning != b"" and _BEGINNING.startswith(beginning))
    differing = [byte for byte, expected in zip(beginning, _BEGINNING, strict=True) if byte != expected]
    return len(differing) <= 1


def index_file(file: Path, fingerprint: str, *, replaces_others: bool = False) -> Path:
    """Where the index of a checkpoint is: in `file`, or where that is another one's in a file beside it that has the
    beginning of the fingerprint in its name. Of the file the header alone is read, but where it names another
    checkpoint, for a damaged index is nobody's, and is made anew in its place. UserError for a file that is no index,
    unless `replaces_others`."""
    own = file.with_name(f"{file.stem}-{fingerprint[:FINGERPRINT_SHOWN]}{file.suffix}")
    if own.is_file():
        return own
    if not file.is_file():
        return file
    if not begins_as_index(file):
        if replaces_others:
            return file
        raise no_index(file, "another beginning")
    if _fingerprint(file) in (None, fingerprint):
        return file
    try:
        _read(file)
    except DamagedIndex:
        return file
    return own


def _fingerprint(file: Path) -> str | None:
    """The one in a file's header; None where it cannot be read there."""
    try:
        header = parse_json(read_metadata(file)["fiber"])
        return text(header["fingerprint"], "fingerprint")
    except (OSError, *WRONG_CONTENT):
        return None


def read_index(file: Path, fingerprint: str) -> Index:
    """An index of the checkpoint with that fingerprint, by one reading of the file. DamagedIndex for one that is not as
    it was written, UserError for any other file."""
    stored = _read(file)
    if stored.fingerprint != fingerprint:
        raise UserError(f"{file} was made by another checkpoint; give another --index")
    return stored.content


def _read(file: Path) -> _Stored:
    try:
        is_of_0_1 = '"images"' in read_metadata(file)["fiber"]
        arrays, metadata = read_mapped(file, has_checksum=not is_of_0_1)
    except (OSError, *WRONG_CONTENT) as error:
        raise DamagedIndex(*no_index(file, error).args) from None
    try:
        header = parse_json(metadata["fiber"])
        features = arrays["features"]
        if "images" in header:
            listed, stamps = len(header["images"]), _stamps_of_header(header)
        else:
            listed, stamps = len(arrays["stamps"]), _stamps_of_arrays(arrays)
        _check(features, len(stamps), listed)
        return _Stored(Index(features, stamps, file), text(header["fingerprint"], "fingerprint"))
    except WRONG_CONTENT as error:
        raise no_index(file, error) from None


def _stamps_of_header(header: Mapping[str, Any]) -> dict[str, Stamp]:
    stamps: dict[str, Stamp] = {}
    for path, size, changed in header["images"]:
        stamps[path_text(path, "path")] = whole_number(size, "size"), whole_number(changed, "time of change")
    return stamps


def _stamps_of_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Stamp]:
    paths = Texts.of(arrays["paths"], arrays["path_ends"])
    stamps: dict[str, Stamp] = {}
    for path, (size, changed) in zip(paths, arrays["stamps"].tolist(), strict=True):
        stamps[path_text(path, "path")] = whole_number(size, "size"), whole_number(changed, "time of change")
    return stamps


def _check(features: np.ndarray, paths: int, listed: int) -> None:
    """ValueError for features that are not those of so many different pictures."""
    if features.dtype not in _TYPES or features.ndim != 2:
        raise ValueError(f"its features are {features.dtype} of {features.ndim} dimensions, not float32 of 2")
    if not len(features) == listed == paths:
        raise ValueError(f"it has {len(features)} features of {listed} pictures, {paths} of them different")
    for block in blocks(features):
        if not np.isfinite(block).all():
            raise ValueError("some of its features are not finite")


def blocks(features: np.ndarray) -> Iterator[np.ndarray]:
    """The features of some pictures at a time."""
    for first in range(0, len(features), BLOCK):
        yield np.asarray(features[first : first + BLOCK])


def no_index(file: Path, reason: object) -> UserError:
    return UserError(f"{file}: not an index of `fiber rerank` ({reason}); delete it or give another --index")


def write_index(file: Path, index: Index, fingerprint: str, outputs: Outputs | None = None) -> None:
    """Write an index so that a kill leaves the old or the new one. UserError where the place cannot be written."""
    shape = index.features.shape[0], index.features.shape[1]
    write_rows(file, index.stamps, Pieces(index.features.dtype, shape, blocks(index.features)), fingerprint, outputs)


def write_rows(
    file: Path, stamps: Mapping[str, Stamp], rows: Pieces, fingerprint: str, outputs: Outputs | None = None
) -> None:
    """As `write_index`, of features that come some at a time."""
    outputs = outputs or Outputs()
    paths = Texts(stamps)
    arrays: dict[str, np.ndarray | Pieces] = {
        "features": rows,
        "stamps": np.array(list(stamps.values()), np.int64).reshape(-1, 2),
        "paths": paths.content,
        "path_ends": paths.ends,
    }
    # It tells by itself that it is fiber's, so that nothing else need lie between the user's pictures.
    with outputs.writing(file, own=begins_as_index(file), kept=False) as temporary:
        write_arrays(temporary, arrays, {"fiber": json.dumps({"fingerprint": fingerprint})})


def in_blocks(paths: Iterable[str], features: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """The features of paths in their order, some at a time."""
    pending: list[np.ndarray] = []
    for path in paths:
        pending.append(features[path])
        if len(pending) == BLOCK:
            yield np.stack(pending)
            pending = []
    if pending:
        yield np.stack(pending)
