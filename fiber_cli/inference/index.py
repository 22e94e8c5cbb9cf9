"""The index of a folder of pictures: what the dual encoder says of each, kept between searches.

It is one safetensors file: `features` float32 (images, D), and in its header, as JSON under "fiber", the checkpoint's
fingerprint and each image's path below the folder, size in bytes and time of change in ns.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fiber_cli.checkpoints.loading import Loaded
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.distributed.collectives import is_main
from fiber_cli.errors import UserError
from fiber_cli.inference.pictures import find_images
from fiber_cli.outputs import replace
from fiber_cli.tasks.abilities import Embedding
from fiber_cli.tasks.items import ImageSet
from fiber_cli.tasks.prediction import PredictOptions, predict_all

INDEX = ".fiber-index.safetensors"
#: How much of a fingerprint stands in a file's name.
FINGERPRINT_SHOWN = 12

#: Bytes and time of change (ns) of a file: another stamp means another picture.
Stamp = tuple[int, int]
#: (path, reason) of what could not be read.
LeftOut = list[tuple[str, str]]


class Index(NamedTuple):
    """`features`: float32 (images, D), L2 norm 1; `stamps`: by path below the folder, in the same order."""

    features: np.ndarray
    stamps: dict[str, Stamp]


def build_index(
    loaded: Loaded, folder: Path, file: Path | None = None, *, options: PredictOptions
) -> tuple[Index, LeftOut]:
    """Dual-encoder features of all pictures below `folder`, and (path, reason) of those that cannot be read.

    They are kept in `file` (default: INDEX in the folder), or where that is another checkpoint's beside it, see
    `index_file`; only new and changed pictures are computed, and what has vanished is dropped. UserError for a file
    that is no index and where nothing can be read.
    """
    if not loaded.can(Embedding):
        raise UserError(f"{loaded.path} was not trained with ITC (task.itc > 0), which searching needs")
    file = index_file(file or folder / INDEX, loaded.fingerprint)
    stamps = stamps_below(folder)
    stored = read_index(file, loaded.fingerprint) if file.is_file() else None
    features = _unchanged(stored, stamps)
    missing = [path for path in stamps if path not in features]
    computed = predict_all(
        loaded.task, image_set(loaded, folder, missing, options.max_pixels), options, what="new images"
    )
    for number, row in computed.rows.items():
        features[missing[number]] = row
    if not features:
        raise UserError(f"{folder}: none of {len(stamps)} images could be read, such as {': '.join(computed.bad[0])}")
    index = _in_order(features, stamps)
    if is_main() and (stored is None or stored.stamps != index.stamps):
        write_index(file, index, loaded.fingerprint)
    return index, computed.bad


def index_file(file: Path, fingerprint: str) -> Path:
    """Where the index of a checkpoint is: in `file`, or where that is another one's in a file beside it that has the
    beginning of the fingerprint in its name. UserError for a file that is no index."""
    own = file.with_name(f"{file.stem}-{fingerprint[:FINGERPRINT_SHOWN]}{file.suffix}")
    if own.is_file() or (file.is_file() and _read(file).fingerprint != fingerprint):
        return own
    return file


def stamps_below(folder: Path) -> dict[str, Stamp]:
    """The image files below a folder by their path in it. UserError where there is none."""
    stamps = {}
    for file in find_images([folder]):
        status = file.stat()
        stamps[str(file.relative_to(folder))] = status.st_size, status.st_mtime_ns
    return stamps


def _unchanged(stored: Index | None, stamps: dict[str, Stamp]) -> dict[str, np.ndarray]:
    """The stored features of the pictures that are as they were, by path."""
    features: dict[str, np.ndarray] = {}
    if stored is None:
        return features
    for row, (path, stamp) in zip(stored.features, stored.stamps.items(), strict=True):
        if stamps.get(path) == stamp:
            features[path] = row
    return features


def _in_order(features: dict[str, np.ndarray], stamps: dict[str, Stamp]) -> Index:
    """The pictures that have features, in the order of the stamps."""
    rows = []
    readable: dict[str, Stamp] = {}
    for path, stamp in stamps.items():
        if path in features:
            rows.append(features[path])
            readable[path] = stamp
    return Index(np.stack(rows), readable)


class _Stored(NamedTuple):
    """An index file's content; fingerprint: of the checkpoint that made it."""

    content: Index
    fingerprint: str


def read_index(file: Path, fingerprint: str) -> Index:
    """An index of the checkpoint with that fingerprint. UserError for any other file."""
    stored = _read(file)
    if stored.fingerprint != fingerprint:
        raise UserError(f"{file} was made by another checkpoint; give another --index")
    return stored.content


def _read(file: Path) -> _Stored:
    try:
        with safe_open(file, "np") as stored:
            header = json.loads((stored.metadata() or {})["fiber"])
            stamps: dict[str, Stamp] = {}
            for path, size, changed in header["images"]:
                stamps[path] = size, changed
            index = Index(stored.get_tensor("features"), stamps)
        return _Stored(index, header["fingerprint"])
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(
            f"{file}: not an index of `fiber rerank` ({error}); delete it or give another --index"
        ) from None


def write_index(file: Path, index: Index, fingerprint: str) -> None:
    """Write an index so that a kill leaves the old or the new one. UserError where the place cannot be written."""
    images = [[path, size, changed] for path, (size, changed) in index.stamps.items()]
    header = json.dumps({"fingerprint": fingerprint, "images": images})
    content = save({"features": index.features}, {"fiber": header})
    try:
        replace(file, content)
    except OSError as error:
        raise UserError(f"{file}: cannot write the index ({error.strerror}); name another place with --index") from None


def image_set(loaded: Loaded, folder: Path, paths: list[str], max_pixels: int = MAX_PIXELS) -> ImageSet:
    """Pictures below a folder as the checkpoint reads them, of at most `max_pixels`; there may be none."""
    if not paths:
        return ImageSet([], loaded.context.model.image_size)
    source = FolderSource(str(folder), folder, paths)
    source.max_pixels = max_pixels
    return ImageSet([(source, number) for number in range(len(paths))], loaded.context.model.image_size)
