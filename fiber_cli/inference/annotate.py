"""Detections drawn into pictures and videos."""

import io
import itertools
import unicodedata
from collections.abc import Sequence
from colorsys import hsv_to_rgb
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fiber_cli.data.image_formats import SUFFIXES, VIDEO_SUFFIXES
from fiber_cli.errors import UserError
from fiber_cli.inference.detections import Detection
from fiber_cli.inference.label_layout import lay_out
from fiber_cli.inference.lettering import drawable
from fiber_cli.inference.video import Shot, VideoWriter
from fiber_cli.outputs import Outputs

#: Steps of the golden ratio around the circle of hues keep the colours of any number of labels apart.
GOLDEN_RATIO = 0.618034
SATURATION, BRIGHTNESS = 0.8, 0.75
#: Smallest letters, in pixels; on large pictures they grow with the longer side, as the lines do.
LETTERS, LETTERS_SHARE = 11, 45
LINE_SHARE = 300
#: Pixels between a label and the edge of its field.
MARGIN = 2

#: A longer side, in pixels, at which labels can be read beside what they name.
READABLE = 480

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]


def annotated(picture: Image.Image, detections: Sequence[Detection], factor: int = 1) -> Image.Image:
    """A copy, enlarged `factor` times, with the boxes, the best on top, and their labels and scores where they hide
    least."""
    picture = picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    longer = max(picture.size)
    letters = max(LETTERS, longer // LETTERS_SHARE)
    font = ImageFont.load_default(letters)
    line = max(1, longer // LINE_SHARE)
    boxes = [_enlarged(detection.box, factor) for detection in detections]
    for detection, box in reversed(list(zip(detections, boxes, strict=True))):
        x1, y1, x2, y2 = box
        frame = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        draw.rectangle(frame, outline=label_colour(detection.index), width=line)
    height = round(1.3 * letters)
    texts = []
    sizes = []
    for detection in detections:
        text = drawable(f"{detection.label} {detection.score:.2f}", font, picture.width - 2 * MARGIN)
        texts.append(text)
        sizes.append((font.getlength(text) + 2 * MARGIN, height))
    # The worst first, so that where there is no room the better label is on top.
    labelled = zip(detections, texts, lay_out(boxes, sizes, picture.size), strict=True)
    for detection, text, field in reversed(list(labelled)):
        draw.rectangle((field.left, field.top, field.right - 1, field.bottom - 1), fill=label_colour(detection.index))
        draw.text((field.left + MARGIN, (field.top + field.bottom) / 2), text, "white", font, "lm")
    return picture


def enlargement(size: tuple[int, int]) -> int:
    """How many times a picture of this size, (width, height), is enlarged along each side: as often as it needs for
    letters that do not fill it."""
    return max(1, -(-READABLE // max(size)))


def _enlarged(box: Box, factor: int) -> Box:
    x1, y1, x2, y2 = box
    return factor * x1, factor * y1, factor * x2, factor * y2


def label_colour(index: int) -> Colour:
    """RGB, 0 to 255, of the label with that number."""
    red, green, blue = hsv_to_rgb(index * GOLDEN_RATIO % 1, SATURATION, BRIGHTNESS)
    return round(255 * red), round(255 * green), round(255 * blue)


class Gallery:
    """Pictures and videos with boxes in a folder, under their files' names; of files that have the same name all but
    the first get the names of their folders before it. UserError where a file may not be written."""

    def __init__(self, folder: Path, files: Sequence[Path], outputs: Outputs | None = None):
        self.outputs = outputs or Outputs()
        for file in files:
            if file.resolve().parent == folder.resolve():
                raise UserError(
                    f"--out {folder}: is the folder of {file.name}, which would be overwritten; name another"
                )
        self.targets = target_files(folder, files)
        for target in self.targets.values():
            self.outputs.reserve(target)
        self.video: VideoWriter | None = None

    def add(self, shot: Shot, detections: Sequence[Detection]) -> None:
        """Write a picture, or the next frame of a video: the frames of a file come one after another."""
        target = self.targets[shot.file]
        # The frames of a video keep their size.
        factor = enlargement(shot.picture.size) if shot.rate is None else 1
        picture = annotated(shot.picture, detections, factor)
        if self.video is not None and self.video.file != target:
            self.close()
        if shot.rate is None:
            self.outputs.write(target, _encoded(picture, target))
            return
        if self.video is None:
            self.video = VideoWriter(target, shot.rate, picture.size, self.outputs)
        self.video.add(picture)

    def close(self) -> None:
        if self.video is not None:
            self.video.close()
        self.video = None

    def drop(self) -> None:
        """Take away the video that is being written."""
        if self.video is not None:
            self.video.drop()
        self.video = None


def _encoded(picture: Image.Image, file: Path) -> bytes:
    """A picture in the form that a file's ending says."""
    stream = io.BytesIO()
    picture.save(stream, Image.registered_extensions()[file.suffix.lower()], quality=95)
    return stream.getvalue()


def target_files(folder: Path, files: Sequence[Path]) -> dict[Path, Path]:
    """Where each file's picture or video goes. A name without a known suffix gets that of a PNG. Names differ by more
    than the case of letters, which does not count on Windows and macOS."""
    targets: dict[Path, Path] = {}
    taken: set[str] = set()
    for file in files:
        suffix = "" if file.suffix.lower() in {*SUFFIXES, *VIDEO_SUFFIXES} else ".png"
        *folders, name = file.resolve().parts[1:]
        while _folded(name + suffix) in taken and folders:
            name = f"{folders.pop()}-{name}"
        whole_name = name
        numbers = itertools.count(2)
        while _folded(name + suffix) in taken:  # a link to another of the files
            name = f"{next(numbers)}-{whole_name}"
        taken.add(_folded(name + suffix))
        targets[file] = folder / (name + suffix)
    return targets


def _folded(name: str) -> str:
    """What two names have in common that are one file on some system."""
    return unicodedata.normalize("NFC", name).casefold()
