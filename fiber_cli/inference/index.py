"""The index of a folder of pictures: what the dual encoder says of each, kept between searches.

It is computed some thousand pictures at a time, by all ranks together, and written as it grows: a command that was
killed goes on where it was. See `index_file` for its form.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fiber_cli.checkpoints.loading import Loaded
from fiber_cli.data.cache_folder import made_by_one
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.mapped_file import Pieces
from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.distributed import collectives
from fiber_cli.distributed.agreement import failing_together
from fiber_cli.errors import UserError
from fiber_cli.inference.growing_index import GrowingIndex
from fiber_cli.inference.index_file import (
    DamagedIndex,
    Index,
    Stamp,
    begins_as_index,
    in_blocks,
    index_file,
    no_index,
    read_index,
    write_rows,
)
from fiber_cli.inference.picture_files import find_images
from fiber_cli.model.precision import arithmetic
from fiber_cli.outputs import Outputs
from fiber_cli.printing import say
from fiber_cli.regular_files import check_regular
from fiber_cli.tasks.abilities import Embedding
from fiber_cli.tasks.items import ImageSet
from fiber_cli.tasks.prediction import PredictOptions, predict_all
from fiber_cli.tasks.progress import progress_bar

if TYPE_CHECKING:
    from tqdm import tqdm

INDEX = ".fiber-index.safetensors"
#: Pictures that are computed before they are written, by all ranks together.
PICTURES_AT_A_TIME = 4096

#: (path, reason) of what could not be read.
LeftOut = list[tuple[str, str]]


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
    if not begins_as_index(file):
        raise no_index(file, "another beginning")


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
    half: bool | None = None,
    shows_progress: bool = False,
) -> tuple[Index, LeftOut]:
    """Dual-encoder features of all pictures below `folder`, and (path, reason) of those that cannot be read; every rank
    calls this and has the same.

    They are kept in `file` (default: INDEX in the folder, or nowhere, which is told, where nothing can be written),
    or where that is another checkpoint's beside it, see `index_file`; only new and changed pictures are computed, and
    what has vanished is dropped. An index that was not finished is gone on with, which is said. half: True for float16,
    to which an index that is there is rounded, False for float32, None for what is there, which is said where it is
    float16, else float32. A damaged index is made anew. An index that is up to date is read once. shows_progress: on
    standard error, where more than a batch is computed. UserError for a file that is no index, unless `outputs` may
    replace it, where nothing can be read, and for half=False of an index that is rounded already.
    """
    outputs = outputs or Outputs()
    if not loaded.can(Embedding):
        raise UserError(f"{loaded.path} was not trained with ITC (task.itc > 0), which searching needs")
    fingerprint = features_fingerprint(loaded.fingerprint, options.precision)  # of the whole file of weights
    is_kept = file is not None or keeps_its_index(folder)
    file = file or folder / INDEX
    stamps = stamps_below(folder)
    while True:
        place = _place(file, fingerprint, outputs)
        with _alone(place, is_kept=is_kept):
            # Another checkpoint's index may have been made there while this command waited.
            if _place(file, fingerprint, outputs) == place:
                building = _Building(loaded, fingerprint, folder, place if is_kept else None, stamps, options, outputs)
                return building.run(place, half=half, shows_progress=shows_progress)


def _place(file: Path, fingerprint: str, outputs: Outputs) -> Path:
    """Where the index of a checkpoint is, see `index_file`; the same on all ranks."""
    place = file
    with failing_together():
        if collectives.is_main():
            place = index_file(file, fingerprint, replaces_others=outputs.force)
    return collectives.gather_objects(place)[0]


@contextmanager
def _alone(file: Path, *, is_kept: bool) -> Iterator[None]:
    """Inside, no other command brings this index up to date; the other ranks wait for the first, which waits for it,
    and it for them, that all read one index."""
    if not is_kept:
        yield
        return
    lock = made_by_one(
        file.with_name(f"{file.name}.growing"), f"{file}: another process is bringing this index up to date"
    )
    with lock if collectives.is_main() else nullcontext():
        collectives.gather_objects(None)
        yield
        collectives.gather_objects(None)


class _Building:
    """An index on its way. fingerprint: of the features; file: where it is kept, None for nowhere."""

    def __init__(
        self,
        loaded: Loaded,
        fingerprint: str,
        folder: Path,
        file: Path | None,
        stamps: dict[str, Stamp],
        options: PredictOptions,
        outputs: Outputs,
    ):
        self.loaded, self.fingerprint, self.folder = loaded, fingerprint, folder
        self.file, self.stamps = file, stamps
        self.options, self.outputs = options, outputs
        self.growing = None if file is None else GrowingIndex(file, fingerprint)
        self.features: dict[str, np.ndarray] = {}
        self.bad: LeftOut = []

    def run(self, file: Path, *, half: bool | None, shows_progress: bool) -> tuple[Index, LeftOut]:
        """file: of the index, whether or not it is kept there; the rest: see `build_index`."""
        stored = self._stored(file)
        begun: dict[str, np.ndarray] = {}
        if self.growing is not None:
            self.growing.check()
            begun = self.growing.features(self.stamps)
        dtype = _dtype(file, half, stored, begun)
        if stored is not None and stored.features.dtype == dtype and stored.stamps == self.stamps:
            return stored, []
        if stored is not None:
            self.features |= _unchanged(stored.features, stored.stamps, self.stamps)
        # Features that were rounded are none of an index that is not.
        usable = {path: row for path, row in begun.items() if row.dtype.itemsize >= dtype.itemsize}
        self.features |= usable
        if usable and collectives.is_main():
            say(f"{file}: {len(usable):,} of {len(self.stamps):,} pictures are there from before")
        missing = [path for path in self.stamps if path not in self.features]
        if stored is None and self.file is not None:  # one that is there may be up to date and need not be writable
            self.outputs.check(file, own=begins_as_index(file))
        self._compute(missing, dtype, shows_progress=shows_progress)
        widths = {len(row) for row in self.features.values()}
        if len(widths) > 1:
            raise UserError(f"{file}: its features are of another width than this checkpoint's; delete it")
        if not self.features:
            raise UserError(
                f"{self.folder}: none of {len(self.stamps)} images could be read, such as {': '.join(self.bad[0])}"
            )
        readable = {path: stamp for path, stamp in self.stamps.items() if path in self.features}
        is_new = stored is None or stored.stamps != readable or stored.features.dtype != dtype
        if not is_new:
            assert stored is not None
            return stored, self.bad
        rows = Pieces(dtype, (len(readable), widths.pop()), in_blocks(readable, self.features))
        return self._finished(rows, readable), self.bad

    def _stored(self, file: Path) -> Index | None:
        if not file.is_file():
            return None
        if not begins_as_index(file) and self.outputs.force:
            return None
        try:
            return read_index(file, self.fingerprint)
        except DamagedIndex:
            if collectives.is_main():
                say(f"{file}: a damaged index; it is made anew")
            return None

    def _compute(self, missing: list[str], dtype: np.dtype, *, shows_progress: bool) -> None:
        """The features of pictures; of more than are computed at a time they are written as they come."""
        is_growing = self.growing is not None and len(missing) > PICTURES_AT_A_TIME
        is_hidden = not shows_progress or len(missing) <= self.options.batch_size
        with progress_bar(len(missing), "new images", hidden=is_hidden) as progress:
            done = _of_all_ranks(progress, len(missing))
            for first in range(0, max(1, len(missing)), PICTURES_AT_A_TIME):
                paths = missing[first : first + PICTURES_AT_A_TIME]
                images = image_set(self.loaded, self.folder, paths, self.options.max_pixels)
                computed = predict_all(self.loaded.task, images, self.options, done=done)
                progress.update(first + len(paths) - progress.n)
                self.bad += computed.bad
                numbers = sorted(computed.rows)
                if not is_growing:
                    self.features |= {paths[number]: computed.rows[number].astype(dtype) for number in numbers}
                elif numbers:
                    rows = np.stack([computed.rows[number] for number in numbers]).astype(dtype)
                    self._grow([paths[number] for number in numbers], rows)
        if is_growing and self.growing is not None:
            collectives.gather_objects(None)
            self.features |= self.growing.features({path: self.stamps[path] for path in missing})

    def _grow(self, paths: list[str], rows: np.ndarray) -> None:
        with failing_together():
            if collectives.is_main() and self.growing is not None:
                self.growing.append([(path, self.stamps[path]) for path in paths], rows)

    def _finished(self, rows: Pieces, stamps: dict[str, Stamp]) -> Index:
        """The index that is written, or where it is not kept in memory."""
        if self.file is None or self.growing is None:
            if collectives.is_main():
                say(
                    f"{self.folder}: cannot be written into, so that its index is not kept; --index FILE keeps it "
                    "elsewhere"
                )
            return Index(np.concatenate([piece.astype(rows.dtype) for piece in rows.pieces]), stamps)
        with failing_together():
            if collectives.is_main():
                write_rows(self.file, stamps, rows, self.fingerprint, self.outputs)
        self.features.clear()
        index = read_index(self.file, self.fingerprint)
        collectives.gather_objects(None)
        if collectives.is_main():
            self.growing.remove()
        return index


def _of_all_ranks(progress: "tqdm[Any]", total: int) -> Callable[[int], object]:
    """Takes how many items this rank has done, and moves the bar as if every other rank had done as many."""

    def add(count: int) -> None:
        remaining = total - progress.n
        progress.update(min(count * collectives.world_size(), remaining))

    return add


def features_fingerprint(of_weights: str, precision: str) -> str:
    """What tells features from those that they are not to be compared with: of other weights, or in another precision,
    whose rounding a search would show without having been asked for it."""
    return of_weights if precision == "fp32" else f"{arithmetic(precision)}-{of_weights}"


def _dtype(file: Path, half: bool | None, stored: Index | None, begun: Mapping[str, np.ndarray]) -> np.dtype:
    """Of the features of an index, see `build_index`. begun: of one that was not finished, by path."""
    is_half = any(row.dtype == np.float16 for row in begun.values())
    if stored is not None:
        is_half = stored.features.dtype == np.float16
        if is_half and half is False:
            raise UserError(
                f"{file}: its features are float16, of which float32 cannot be made; delete it, or name another index"
            )
    if half is None and is_half and collectives.is_main():
        say(f"{file}: its features stay float16, as it was made; delete it for float32")
    is_half = is_half if half is None else half
    return np.dtype(np.float16 if is_half else np.float32)


def stamps_below(folder: Path) -> dict[str, Stamp]:
    """The image files below a folder by their path in it. UserError where there is none."""
    stamps = {}
    for file in find_images([folder]):
        status = file.stat()
        stamps[str(file.relative_to(folder))] = status.st_size, status.st_mtime_ns
    return stamps


def _unchanged(features: np.ndarray, stored: Mapping[str, Stamp], stamps: Mapping[str, Stamp]) -> dict[str, np.ndarray]:
    """The stored features of the pictures that are as they were, by path."""
    unchanged = {}
    for row, (path, stamp) in zip(np.asarray(features), stored.items(), strict=True):
        if stamps.get(path) == stamp:
            unchanged[path] = row
    return unchanged


def image_set(loaded: Loaded, folder: Path, paths: list[str], max_pixels: int = MAX_PIXELS) -> ImageSet:
    """Pictures below a folder as the checkpoint reads them, of at most `max_pixels`; there may be none."""
    if not paths:
        return ImageSet([], loaded.context.model.image_size)
    source = FolderSource(str(folder), folder, paths)
    source.max_pixels = max_pixels
    return ImageSet([(source, number) for number in range(len(paths))], loaded.context.model.image_size)
