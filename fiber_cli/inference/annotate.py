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
from fiber_cli.inference.detections import Detection, best_of_objects
from fiber_cli.inference.label_layout import lay_out
from fiber_cli.inference.lettering import wrapped
from fiber_cli.inference.video import Shot, VideoWriter
from fiber_cli.outputs import Outputs

#: Steps of the golden ratio around the circle of hues keep the colours of any number of labels apart; those of near
#: hues, which are 5, 8 or 13 steps from each other, differ in brightness.
GOLDEN_RATIO = 0.618034
SATURATION, BRIGHTNESS = 0.8, (0.75, 0.5, 0.95)
#: Smallest letters, in pixels; on large pictures they grow with the longer side, as the lines do.
LETTERS, LETTERS_SHARE = 11, 36
LINE_SHARE = 240
#: Pixels between a label and the edge of its field.
MARGIN = 2
#: Height of a line of text, in heights of letters.
LEADING = 1.3
#: Most lines of a label, and the share of the picture's width that none goes beyond.
LABEL_LINES, LABEL_SHARE = 6, 0.6
#: Weights of red, green and blue in how light a colour looks, and how light it is where black letters can be read best
#: (relative luminance and contrast of WCAG 2).
LUMINANCE, LIGHT = (0.2126, 0.7152, 0.0722), 0.179

#: A longer side, in pixels, at which labels can be read beside what they name.
READABLE = 480
#: Boxes that have more in common, by IoU, are drawn as one object's: those of one anchor under several names are the
#: same, those of its neighbours nearly.
SAME_OBJECT_IOU = 0.8

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
    line_height = round(LEADING * letters)
    labels = []
    sizes = []
    for detection in detections:
        text = f"{detection.label} {detection.score:.2f}"
        lines = wrapped(text, font, LABEL_SHARE * picture.width, LABEL_LINES)
        labels.append(lines)
        sizes.append((max(map(font.getlength, lines)) + 2 * MARGIN, len(lines) * line_height))
    # The worst first, so that where there is no room the better label is on top.
    labelled = zip(detections, labels, lay_out(boxes, sizes, picture.size), strict=True)
    for detection, lines, field in reversed(list(labelled)):
        colour = label_colour(detection.index)
        draw.rectangle((field.left, field.top, field.right - 1, field.bottom - 1), fill=colour)
        for number, text in enumerate(lines):
            middle = field.top + (number + 0.5) * line_height
            draw.text((field.left + MARGIN, middle), text, letter_colour(colour), font, "lm")
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
    red, green, blue = hsv_to_rgb(index * GOLDEN_RATIO % 1, SATURATION, BRIGHTNESS[index % 3])
    return round(255 * red), round(255 * green), round(255 * blue)


def letter_colour(field: Colour) -> str:
    """What can be read on a field of this colour: "black" or "white"."""
    luminance = 0.0
    for weight, value in zip(LUMINANCE, field, strict=True):
        luminance += weight * (value / 255) ** 2.2
    return "black" if luminance > LIGHT else "white"


class Gallery:
    """Pictures and videos with boxes in a folder, under their files' names; of files that have the same name all but
    the first get the names of their folders before it. Of boxes with an IoU of more than `same_object_iou` the best is
    drawn. `hidden` counts the others. UserError where a file may not be written."""

    def __init__(
        self,
        folder: Path,
        files: Sequence[Path],
        outputs: Outputs | None = None,
        same_object_iou: float = SAME_OBJECT_IOU,
    ):
        self.same_object_iou = same_object_iou
        self.hidden = 0
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
        drawn = best_of_objects(detections, self.same_object_iou)
        self.hidden += len(detections) - len(drawn)
        picture = annotated(shot.picture, drawn, enlargement(shot.picture.size))
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
