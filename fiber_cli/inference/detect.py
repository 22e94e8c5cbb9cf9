"""`fiber detect`: boxes in pictures and videos, as a table, as JSON, as COCO results, and drawn.

Pictures are read, searched and written in batches and then forgotten, so folders and videos may have any length.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from fiber_cli.characters import row
from fiber_cli.checkpoints.files import checkpoint_files
from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.errors import UserError
from fiber_cli.inference.annotate import SAME_OBJECT_IOU, Gallery
from fiber_cli.inference.coco_results import CocoResults, coco_files
from fiber_cli.inference.detections import Detection
from fiber_cli.inference.fiber import USUAL_THRESHOLD, Fiber
from fiber_cli.inference.json_list import JsonList
from fiber_cli.inference.picture_files import distinct_images
from fiber_cli.inference.pictures import batches
from fiber_cli.inference.queries import Query
from fiber_cli.inference.unseen import say_unseen
from fiber_cli.inference.video import Shot, is_video, shots, video_package
from fiber_cli.outputs import Outputs
from fiber_cli.placement import USUAL, Placement
from fiber_cli.printing import say, show


class Output(Protocol):
    """Where detections go, picture by picture; ended by `close`, or by `drop` where something has failed."""

    def add(self, shot: Shot, detections: Sequence[Detection]) -> None: ...

    def close(self) -> None: ...

    def drop(self) -> None: ...


class Table:
    """Lines on standard output: path, label, score, x1 y1 x2 y2."""

    def add(self, shot: Shot, detections: Sequence[Detection]) -> None:
        for line in table_lines(shot, detections):
            show(line)
        sys.stdout.flush()

    def close(self) -> None:
        pass

    def drop(self) -> None:
        pass


class PrintedJson:
    """A JSON list of pictures with their detections on standard output."""

    def __init__(self) -> None:
        self.items = JsonList(sys.stdout)

    def add(self, shot: Shot, detections: Sequence[Detection]) -> None:
        described = [detection._asdict() for detection in detections]
        self.items.add({**shot.to_json(), "detections": described})

    def close(self) -> None:
        self.items.close()

    def drop(self) -> None:
        with suppress(OSError):
            self.items.close()


def table_lines(shot: Shot, detections: Sequence[Detection]) -> Iterator[str]:
    """A line for each detection, its parts separated by tabs."""
    for detection in detections:
        edges = " ".join(f"{edge:.1f}" for edge in detection.box)
        yield row([shot.name, detection.label, f"{detection.score:.3f}", edges])


def run_detect(
    checkpoint: Path,
    paths: Sequence[Path],
    *,
    latest: bool = False,
    labels: str | Sequence[str] | None,
    sentence: str | None,
    phrases: str | None,
    threshold: float | None,
    nms_iou: float | None,
    agnostic_nms_iou: float | None,
    top_k: int | None,
    chunk: int | str,
    as_json: bool,
    coco: Path | None,
    out: Path | None,
    batch: int,
    max_pixels: int = MAX_PIXELS,
    force: bool = False,
    labels_file: Path | None = None,
    placement: Placement = USUAL,
) -> None:
    """Search the files, and folders of pictures, for labels or for phrases of a sentence, and print what is found.

    latest: see `Fiber.from_pretrained`. labels, chunk: see `Fiber.detect`. sentence, phrases: see `Fiber.ground`; in
    place of labels, where these are None. threshold, nms_iou, agnostic_nms_iou, top_k, max_pixels: see `Fiber.find`;
    drawn are an object's boxes once in any case, see `annotate.SAME_OBJECT_IOU`, but for agnostic_nms_iou=1. force: see
    `Outputs`; labels_file: where the labels are from. placement: of the detector. Files that cannot be read are named
    on standard error and the rest is done; UserError where none can be read, and, before anything is done, where an
    output may not be written.
    """
    files = distinct_images(paths)
    has_videos = any(is_video(file) for file in files)
    if has_videos:
        video_package()  # tells at once where it is missing
    read = [*files, *checkpoint_files(checkpoint, latest=latest)]
    if labels_file:
        read.append(labels_file)
    written = Outputs(force=force, inputs=read)
    drawn_once = SAME_OBJECT_IOU if agnostic_nms_iou is None else agnostic_nms_iou
    gallery = None if out is None else Gallery(out, files, written, drawn_once)
    for file in coco_files(coco) if coco else ():
        written.reserve(file)
    model = Fiber.from_pretrained(checkpoint, latest=latest, batch_size=batch, **asdict(placement))
    query = _query(model, labels, chunk, sentence, phrases)
    asked = query.names
    if labels is None and sentence is not None:
        asked = [sentence]
    say_unseen([model.loaded], asked)
    files_to_read = tqdm(
        shots(files, max_pixels),
        total=None if has_videos else len(files),
        unit="picture",
        dynamic_ncols=True,
        disable=not sys.stderr.isatty() or (len(files) <= batch and not has_videos),
    )
    picture_count = 0
    detection_count = 0
    with ExitStack() as stack:
        outputs: list[Output] = []
        if gallery is not None:
            outputs.append(stack.enter_context(_ended(gallery)))
        if coco:
            outputs.append(stack.enter_context(_ended(CocoResults(coco, query.names, written))))
        # The screen last: nothing is printed where a file cannot be opened.
        screen = PrintedJson() if as_json else Table()
        outputs.append(stack.enter_context(_ended(screen)))
        for shots_of_batch in batches(files_to_read, batch):
            pictures = [shot.picture for shot in shots_of_batch]
            detected = model.find(
                pictures,
                query,
                threshold=threshold,
                nms_iou=nms_iou,
                agnostic_nms_iou=agnostic_nms_iou,
                top_k=top_k,
            )
            picture_count += len(pictures)
            for detections in detected:
                detection_count += len(detections)
            for output in reversed(outputs):
                with tqdm.external_write_mode():
                    for shot, detections in zip(shots_of_batch, detected, strict=True):
                        output.add(shot, detections)
        if not picture_count:
            raise UserError(f"none of {len(files)} files could be read")
    if gallery is not None and gallery.hidden:
        say(
            f"{gallery.hidden} of the boxes are not drawn, each on a better one (IoU over {drawn_once:g}); "
            f"--agnostic-nms 1 draws all, --agnostic-nms {drawn_once:g} leaves them out of the results too"
        )
    say(f"{detection_count} detections of at least {_in_words(threshold, model)} in {picture_count} pictures")


@contextmanager
def _ended(output: Output) -> Iterator[Output]:
    """Closes an output, or drops it where something fails."""
    try:
        yield output
        output.close()
    except BaseException:
        output.drop()
        raise


def _query(
    model: Fiber, labels: str | Sequence[str] | None, chunk: int | str, sentence: str | None, phrases: str | None
) -> Query:
    if labels is None:
        return model.phrase_query(sentence, phrases)
    query = model.label_query(labels, chunk)
    if isinstance(labels, str) and len(query.names) > 1 and " . " not in labels:
        names = ", ".join(f'"{name}"' for name in query.names)
        say(f'looking for {names}; a name with a period: "st. bernard . cat", or --labels FILE')
    return query


def _in_words(threshold: float | None, model: Fiber) -> str:
    """The least score, and where it comes from if it is the checkpoint's."""
    if threshold is None and model.threshold != USUAL_THRESHOLD:
        return f"{model.threshold:g} (chosen by its validation)"
    return f"{model.threshold if threshold is None else threshold:g}"
