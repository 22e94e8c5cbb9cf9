"""`fiber detect`: boxes in pictures and videos, as a table, as JSON, as COCO results, and drawn.

Pictures are read, searched and written in batches and then forgotten, so folders and videos may have any length.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from colorsys import hsv_to_rgb
from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from fiber_cli.errors import UserError, optional
from fiber_cli.inference.fiber import SUFFIXES, Detection, Fiber, find_images, read_picture
from fiber_cli.inference.sheet import drawable

VIDEOS = {".mp4", ".mov", ".avi", ".mkv", ".webm"}


class Shot(NamedTuple):
    """A picture, upright; of a video its frame number, from 0, and how many there are a second."""

    file: Path
    picture: Image.Image
    frame: int | None = None
    rate: Fraction | None = None

    def to_json(self) -> dict[str, Any]:
        frame = {} if self.frame is None else {"frame": self.frame}
        return {"image": str(self.file)} | frame | {"width": self.picture.width, "height": self.picture.height}

    def table(self, found: Sequence[Detection]) -> Iterator[str]:
        name = str(self.file) if self.frame is None else f"{self.file}#{self.frame}"
        for label, _, score, box in found:
            yield "\t".join([name, label, f"{score:.3f}", " ".join(f"{edge:.1f}" for edge in box)])


def run_detect(
    checkpoint: Path, paths: Sequence[Path], asked: str | Sequence[str], phrases: str | None, *, chunk: int | str,
    as_json: bool, coco: Path | None, out: Path | None, batch: int, **options: float | None,
) -> None:  # fmt: skip
    """Search the files, and folders of pictures, for `asked`, and print what is found.

    asked: labels, see `Fiber.detect`; or with `phrases`, which are found where that is empty, a sentence. options: see
    `Fiber.find`. Files that cannot be read are named on standard error and the rest is done; UserError where none can
    be read.
    """
    files = list(dict.fromkeys(find_images(paths)))
    videos = any(map(is_video, files))
    if videos:
        _av()
    model = Fiber.from_pretrained(checkpoint, batch_size=batch)
    query = model.label_query(asked, chunk) if phrases is None else model.phrase_query(asked, phrases or None)
    bar = {"total": None if videos else len(files), "unit": "picture", "dynamic_ncols": True}
    read = iter(tqdm(shots(files), **bar, disable=not sys.stderr.isatty() or not videos and len(files) <= batch))
    pictures = hits = 0
    with ExitStack() as stack:
        gallery = stack.enter_context(closing(Gallery(out, files))) if out else None
        results = stack.enter_context(closing(CocoResults(coco, query.names))) if coco else None
        listed = stack.enter_context(closing(JsonList(sys.stdout))) if as_json else None
        while part := list(islice(read, batch)):
            found = model.find([shot.picture for shot in part], query, **options)
            pictures, hits = pictures + len(part), hits + sum(map(len, found))
            with tqdm.external_write_mode():
                for shot, detections in zip(part, found):
                    if listed:
                        listed.add(shot.to_json() | {"detections": [each._asdict() for each in detections]})
                    else:
                        print(*shot.table(detections), sep="\n", end="\n" if detections else "", flush=True)
            for writer in filter(None, (results, gallery)):
                for shot, detections in zip(part, found):
                    writer.add(shot, detections)
        if not pictures:
            raise UserError(f"none of {len(files)} files could be read")
    print(f"{hits} detections of at least {options['threshold']:g} in {pictures} pictures", file=sys.stderr)


def is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEOS


def shots(files: Sequence[Path]) -> Iterator[Shot]:
    """All pictures and frames; a file that cannot be read is named on standard error."""
    for file in files:
        try:
            if is_video(file):
                yield from frames(file)
            else:
                yield Shot(file, read_picture(file))
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)


def frames(file: Path) -> Iterator[Shot]:
    """The frames of a video. UserError where it cannot be read, or at the place from where it cannot be."""
    av, number = _av(), -1
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise UserError(f"{file}: holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                picture = frame.to_image().rotate(frame.rotation, expand=True)
                yield Shot(file, picture, number, stream.average_rate or Fraction(25))
    except av.error.FFmpegError as error:
        place = "" if number < 0 else f" after frame {number}"
        raise UserError(f"{file}: not a readable video{place}: {error.strerror}") from None


def _av() -> Any:
    return optional("av", "videos need PyAV, which is not installed; get it by `pip install 'fiber-vl[video]'`")


class JsonList:
    """A JSON list that is written item by item."""

    def __init__(self, file: TextIO):
        self.file, self.start = file, "[\n"

    def add(self, item: Any) -> None:
        self.file.write(self.start + json.dumps(item, ensure_ascii=False))
        self.start = ",\n"

    def close(self) -> None:
        self.file.write("[]\n" if self.start == "[\n" else "\n]\n")
        self.file.flush()


class CocoResults:
    """Results in COCO's form in `file`; images and categories, whose ids count from 1, beside it in
    `<name>-images.json`, in the form of a truth without annotations.

    Boxes are xywh, as `DetectionSet` has them but not beyond the picture.
    """

    def __init__(self, file: Path, names: Sequence[str]):
        self.truth = file.with_name(f"{file.stem}-images.json")
        self.file = file.open("w", encoding="utf-8")
        self.results, self.images = JsonList(self.file), []
        self.categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]

    def add(self, shot: Shot, found: Sequence[Detection]) -> None:
        about = shot.to_json()
        self.images.append({"id": len(self.images) + 1, "file_name": about.pop("image")} | about)
        for _, index, score, (x1, y1, x2, y2) in found:
            row = {"image_id": len(self.images), "category_id": index + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            self.results.add(row | {"score": score})

    def close(self) -> None:
        self.results.close()
        self.file.close()
        truth = {"images": self.images, "categories": self.categories, "annotations": []}
        self.truth.write_text(json.dumps(truth, ensure_ascii=False), encoding="utf-8")


class Gallery:
    """Pictures and videos with boxes in a folder, under their files' names; of files that have the same name all but
    the first get the names of their folders before it."""

    def __init__(self, folder: Path, files: Sequence[Path]):
        if own := next((file for file in files if file.resolve().parent == folder.resolve()), None):
            raise UserError(f"--out {folder}: is the folder of {own.name}, which would be overwritten; name another")
        folder.mkdir(parents=True, exist_ok=True)
        self.targets: dict[Path, Path] = {}
        taken: set[str] = set()
        for file in files:
            suffix = "" if file.suffix.lower() in SUFFIXES | VIDEOS else ".png"
            *folders, name = file.resolve().parts[1:]
            while (whole := name + suffix) in taken and folders:
                name = f"{folders.pop()}-{name}"
            taken.add(whole)
            self.targets[file] = folder / whole
        self.video: VideoWriter | None = None

    def add(self, shot: Shot, found: Sequence[Detection]) -> None:
        target, picture = self.targets[shot.file], annotated(shot.picture, found)
        if self.video and self.video.file != target:
            self.close()
        if shot.rate is None:
            picture.save(target, quality=95)
            return
        self.video = self.video or VideoWriter(target, shot.rate, picture.size)
        self.video.add(picture)

    def close(self) -> None:
        if self.video:
            self.video.close()
        self.video = None


class VideoWriter:
    """A video without sound, in the usual codec of the file's kind. Sides are made even, which codecs want."""

    def __init__(self, file: Path, rate: Fraction, size: tuple[int, int]):
        self.av, self.file = _av(), file
        self.container = self.av.open(str(file), "w")
        # MPEG-4 counts time in at most 65,535 parts of a second.
        self.stream = self.container.add_stream(self.container.default_video_codec, rate.limit_denominator(1001))
        self.stream.width, self.stream.height = (side + side % 2 for side in size)
        self.stream.pix_fmt, self.stream.bit_rate = "yuv420p", 8 * size[0] * size[1]

    def add(self, picture: Image.Image) -> None:
        size = self.stream.width, self.stream.height
        self.container.mux(self.stream.encode(self.av.VideoFrame.from_image(picture.resize(size))))

    def close(self) -> None:
        self.container.mux(self.stream.encode(None))
        self.container.close()


def annotated(picture: Image.Image, found: Sequence[Detection]) -> Image.Image:
    """A copy with the boxes, the best on top, and their labels and scores."""
    picture = picture.copy()
    draw, side = ImageDraw.Draw(picture), max(picture.size)
    font, line = ImageFont.load_default(max(11, side // 45)), max(1, side // 300)
    for label, index, score, (x1, y1, x2, y2) in reversed(found):
        # Steps of the golden ratio keep the colours of any number of labels apart.
        colour = tuple(round(255 * part) for part in hsv_to_rgb(index * 0.618034 % 1, 0.8, 0.75))
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=line)
        text = drawable(f"{label} {score:.2f}", font, picture.width - 4)
        width, height = font.getlength(text) + 4, round(1.3 * font.size)
        left, top = max(0, min(x1, picture.width - width)), y1 if y1 < height else y1 - height
        draw.rectangle((left, top, left + width - 1, top + height - 1), fill=colour)
        draw.text((left + 2, top + height / 2), text, "white", font, "lm")
    return picture
