"""The index of a folder of pictures: what the dual encoder says of each, kept between searches.

It is one safetensors file: `features` float32 (images, D), and in its header, as JSON under "fiber", the checkpoint's
fingerprint and each image's path below the folder, size in bytes and time of change in ns.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fiber_cli.checkpoints.loading import Loaded
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.data.values import path_text, text, whole_number
from fiber_cli.distributed.collectives import is_main
from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.inference.pictures import find_images
from fiber_cli.outputs import Outputs
from fiber_cli.parsing import parse_json
from fiber_cli.printing import say
from fiber_cli.regular_files import check_regular
from fiber_cli.tasks.abilities import Embedding
from fiber_cli.tasks.items import ImageSet
from fiber_cli.tasks.prediction import PredictOptions, predict_all

INDEX = ".fiber-index.safetensors"
#: An index file's beginning, behind the 8 bytes that say how long its header is.
_BEGINNING = b'{"__metadata__":{"fiber":'
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


def check_index(file: Path, outputs: Outputs) -> None:
    """Whether an index can be kept in a file, before anything is computed: UserError where what is there is none, or
    the place cannot be written. An index that is there may be up to date, and need not be writable."""
    try:
        check_regular(file)  # it is read before it is written
    except OSError as error:
        raise UserError(f"--index: {file}: {error.strerror}") from None
    if outputs.force or not file.is_file():
        try:
            outputs.reserve(file)
        except UserError as error:
            raise UserError(f"--index: {error}") from None
        return
    if outputs.is_input(file):
        raise UserError(f"{file}: is read by this command and would be overwritten; name another --index")
    if not _begins_as_index(file):
        raise _no_index(file, "another beginning")


def keeps_its_index(folder: Path) -> bool:
    """Whether the index of a folder can lie in it."""
    return os.access(folder, os.W_OK | os.X_OK)


def build_index(
    loaded: Loaded,
    folder: Path,
    file: Path | None = None,
    *,
    options: PredictOptions,
    outputs: Outputs | None = None,
) -> tuple[Index, LeftOut]:
    """Dual-encoder features of all pictures below `folder`, and (path, reason) of those that cannot be read.

    They are kept in `file` (default: INDEX in the folder, or nowhere, which is told, where nothing can be written),
    or where that is another checkpoint's beside it, see `index_file`; only new and changed pictures are computed, and
    what has vanished is dropped. A damaged index is made anew. UserError for a file that is no index, unless `outputs`
    may replace it, and where nothing can be read.
    """
    outputs = outputs or Outputs()
    if not loaded.can(Embedding):
        raise UserError(f"{loaded.path} was not trained with ITC (task.itc > 0), which searching needs")
    fingerprint = features_fingerprint(loaded.fingerprint, options.precision)  # of the whole file of weights
    is_kept = file is not None or keeps_its_index(folder)
    file = file or folder / INDEX
    if not _is_to_be_replaced(file, outputs):
        file = index_file(file, fingerprint)
    stamps = stamps_below(folder)
    stored = None
    if _is_to_be_replaced(file, outputs):
        say(f"{file}: not a whole index; it is made anew")
    elif file.is_file():
        stored = read_index(file, fingerprint)
    features = _unchanged(stored, stamps)
    missing = [path for path in stamps if path not in features]
    if stored is None and is_kept:  # an index that is there may be up to date but for pictures that cannot be read
        outputs.check(file, own=_begins_as_index(file))
    computed = predict_all(
        loaded.task, image_set(loaded, folder, missing, options.max_pixels), options, what="new images"
    )
    for number, row in computed.rows.items():
        features[missing[number]] = row
    widths = {len(row) for row in features.values()}
    if len(widths) > 1:
        raise UserError(f"{file}: its features are of another width than this checkpoint's; delete it")
    if not features:
        raise UserError(f"{folder}: none of {len(stamps)} images could be read, such as {': '.join(computed.bad[0])}")
    index = _in_order(features, stamps)
    is_new = stored is None or stored.stamps != index.stamps
    if is_main() and is_new and is_kept:
        write_index(file, index, fingerprint, outputs)
    elif is_main() and is_new:
        say(f"{folder}: cannot be written into, so that its index is not kept; --index FILE keeps it elsewhere")
    return index, computed.bad


def features_fingerprint(of_weights: str, precision: str) -> str:
    """What tells features from those that they are not to be compared with: of other weights, or of int8, which is
    apart from the other precisions by more than rounding."""
    return f"int8-{of_weights}" if precision == "int8" else of_weights


def _is_to_be_replaced(file: Path, outputs: Outputs) -> bool:
    """Whether there is a file that is an index cut short, or is none and may be replaced."""
    if not file.is_file():
        return False
    return _is_cut(file) if _begins_as_index(file) else outputs.force


def _begins_as_index(file: Path) -> bool:
    """Whether there is a file that is an index by its beginning, or is empty."""
    try:
        with file.open("rb") as stream:
            beginning = stream.read(8 + len(_BEGINNING))
    except OSError:
        return False
    is_cut = len(beginning) > 8 and _BEGINNING.startswith(beginning[8:])
    return not beginning or is_cut


def _is_cut(file: Path) -> bool:
    """Whether a file is shorter than its header says."""
    try:
        with safe_open(file, "np"):
            return False
    except (SafetensorError, OSError, ValueError):
        return True


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
            header = parse_json((stored.metadata() or {})["fiber"])
            stamps: dict[str, Stamp] = {}
            for path, size, changed in header["images"]:
                stamps[path_text(path, "path")] = whole_number(size, "size"), whole_number(changed, "time of change")
            features = stored.get_tensor("features")
        _check(features, len(stamps), len(header["images"]))
        return _Stored(Index(features, stamps), text(header["fingerprint"], "fingerprint"))
    except (SafetensorError, OSError, RuntimeError, *WRONG_CONTENT) as error:
        raise _no_index(file, error) from None


def _check(features: np.ndarray, paths: int, listed: int) -> None:
    """ValueError for features that are not those of so many different pictures."""
    if features.dtype != np.float32 or features.ndim != 2:
        raise ValueError(f"its features are {features.dtype} of {features.ndim} dimensions, not float32 of 2")
    if not len(features) == listed == paths:
        raise ValueError(f"it has {len(features)} features of {listed} pictures, {paths} of them different")
    if not np.isfinite(features).all():
        raise ValueError("some of its features are not finite")


def _no_index(file: Path, reason: object) -> UserError:
    return UserError(f"{file}: not an index of `fiber rerank` ({reason}); delete it or give another --index")


def write_index(file: Path, index: Index, fingerprint: str, outputs: Outputs | None = None) -> None:
    """Write an index so that a kill leaves the old or the new one. UserError where the place cannot be written."""
    outputs = outputs or Outputs()
    images = [[path, size, changed] for path, (size, changed) in index.stamps.items()]
    header = json.dumps({"fingerprint": fingerprint, "images": images})
    content = save({"features": index.features}, {"fiber": header})
    # It tells by itself that it is fiber's, so that nothing else need lie between the user's pictures.
    outputs.write(file, content, own=_begins_as_index(file), kept=False)


def image_set(loaded: Loaded, folder: Path, paths: list[str], max_pixels: int = MAX_PIXELS) -> ImageSet:
    """Pictures below a folder as the checkpoint reads them, of at most `max_pixels`; there may be none."""
    if not paths:
        return ImageSet([], loaded.context.model.image_size)
    source = FolderSource(str(folder), folder, paths)
    source.max_pixels = max_pixels
    return ImageSet([(source, number) for number in range(len(paths))], loaded.context.model.image_size)
