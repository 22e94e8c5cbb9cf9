"""Labels in Ultralytics' form: a text file beside each picture, a line for each object.

A line has the number of the class, and then the centre, width and height of the box as shares of the picture's width
and height, upright by its EXIF orientation; or the corners of an outline as such shares, around which the box lies. A
picture without a file, or with an empty one, has no objects.
"""

import os
from collections.abc import Iterator, Sequence
from glob import escape
from pathlib import Path
from typing import NamedTuple

from fiber_cli.data.coco_json import CocoImage
from fiber_cli.data.data_yaml import DataYaml, read_data_yaml
from fiber_cli.data.file_records import FileRecords
from fiber_cli.data.files import read_lines
from fiber_cli.data.images import upright_size
from fiber_cli.data.labelled_set import LabelledSet, below, categories_named, gathered, paths_of, placed_object
from fiber_cli.data.object_columns import CocoObject
from fiber_cli.data.records import Size
from fiber_cli.data.values import finite_number, whole_number
from fiber_cli.errors import UserError

_WANTED = "Ultralytics' labels"
_LINE = "a line for each object: its class, and cx cy w h as shares of the picture, or the corners of its outline"
_IMAGES, _LABELS = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
#: Shares of the picture are at most 1; what is past this is meant in pixels.
_MOST_SHARE = 2
_BOX, _CORNERS = 4, 3


def label_file(picture: Path) -> Path:
    """Where the labels of a picture are: below `labels` in place of the last `images` of its path, else beside it."""
    head, images, tail = str(picture).rpartition(_IMAGES)
    if not images:
        return picture.with_suffix(".txt")
    return Path(head + _LABELS + tail).with_suffix(".txt")


def read_yolo(file: str | Path, split: str, *, lenient: bool = False) -> LabelledSet:
    """A split of a data set by its `data.yaml`. Pictures that cannot be read, and lines of another form, are left out,
    see `FileRecords` also for lenient; a line that comes twice in its file counts once. `UserError` for files of
    another form, and where no picture has labels."""
    data = read_data_yaml(file)
    pictures = data.pictures(split)
    records = FileRecords(f"{data.file}: {split}", _WANTED, _LINE, lenient=lenient)
    sizes: dict[Path, Size] = {}
    with_places = zip(map(str, pictures), pictures, strict=True)
    for place, size in records.placed("pictures", with_places, upright_size):
        sizes[Path(place)] = size
    labels = _Labels(data, sizes)
    objects: dict[Path, list[CocoObject | None]] = {picture: [] for picture in sizes}
    for _, read in records.placed("labels", labels.lines(), labels.read):
        objects[read.picture].append(read.content)
    if not labels.files:
        looked = label_file(pictures[0])
        raise UserError(f"{data.file}: {split}: none of {len(pictures)} pictures has labels, such as {looked}")
    images = []
    for number, (picture, size) in enumerate(sizes.items(), 1):
        images.append(CocoImage(number, below(picture, data.folder), size, {}))
    categories = categories_named(data.names)
    files = gathered(images, list(objects.values()), categories, records.left_out)
    orphans = _labels_without_picture(pictures)
    absent = [str(picture) for picture in pictures if not picture.is_file()]
    absent += map(str, orphans)
    remarks = tuple(_remarks(labels, orphans))
    return LabelledSet("Ultralytics' (YOLO)", data.folder, files, paths_of(images), categories, tuple(absent), remarks)


def yolo_files(file: str | Path, split: str) -> Iterator[Path]:
    """The files, and the folders of labels, that `read_yolo` looks at. `UserError` as of that."""
    pictures = read_data_yaml(file).pictures(split)
    yield Path(file)
    labels = list(map(label_file, pictures))
    yield from pictures
    yield from labels
    yield from {each.parent: None for each in labels if _LABELS in str(each)}


class _Read(NamedTuple):
    """A picture's object; None for one without an area inside it."""

    picture: Path
    content: CocoObject | None


class _Labels:
    """Reads the label files of pictures of known sizes. files: how many there are; doubles: how many lines come twice
    in their file."""

    def __init__(self, data: DataYaml, sizes: dict[Path, Size]):
        self.data, self.sizes = data, sizes
        self.files = 0
        self.doubles = 0

    def lines(self) -> Iterator[tuple[str, tuple[Path, bytes]]]:
        """Place, picture and content of each line."""
        for picture in self.sizes:
            file = label_file(picture)
            if not file.is_file():
                continue
            self.files += 1
            seen: set[bytes] = set()
            for number, line in read_lines(file, _WANTED):
                if line.strip() in seen:
                    self.doubles += 1
                    continue
                seen.add(line.strip())
                yield f"{file} line {number}", (picture, line)

    def read(self, line: tuple[Path, bytes]) -> _Read:
        picture, content = line
        words = content.decode().split()
        number = whole_number(words[0], "the class")
        if not 0 <= number < len(self.data.names):
            raise ValueError(f"there is no class {number}; names has 0 to {len(self.data.names) - 1}")
        shares = [finite_number(word, "a share") for word in words[1:]]
        if self.data.has_keypoints:
            shares = shares[:_BOX]
        if max(map(abs, shares), default=0) > _MOST_SHARE:
            raise ValueError(f"{max(shares, key=abs):g} is no share of the picture, 0 to 1")
        height, width = self.sizes[picture]
        x1, y1, x2, y2 = _edges(shares)
        edges = (x1 * width, y1 * height, x2 * width, y2 * height)
        return _Read(picture, placed_object(edges, self.sizes[picture], number))


def _edges(shares: Sequence[float]) -> tuple[float, float, float, float]:
    """Of a centre with width and height, or around corners."""
    if len(shares) == _BOX:
        x, y, width, height = shares
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(shares) < 2 * _CORNERS or len(shares) % 2:
        raise ValueError(
            f"{len(shares)} numbers behind the class; a box has 4, an outline x and y of 3 corners or more"
        )
    return min(shares[::2]), min(shares[1::2]), max(shares[::2]), max(shares[1::2])


def _remarks(labels: _Labels, orphans: Sequence[Path]) -> Iterator[str]:
    without = len(labels.sizes) - labels.files
    if without:
        yield f"{without:,} of {len(labels.sizes):,} pictures have no file of labels: nothing is marked in them"
    if labels.doubles:
        yield f"{labels.doubles:,} lines come twice in their file, and count once"
    if orphans:
        yield f"{len(orphans):,} files of labels have no picture, such as {orphans[0]}"


def _labels_without_picture(pictures: Sequence[Path]) -> list[Path]:
    """Files of labels in the folders of those of the pictures that belong to no picture there."""
    wanted = set(map(label_file, pictures))
    folders = {file.parent for file in wanted if _LABELS in str(file)}
    orphans = []
    for folder in sorted(folders):
        for file in sorted(folder.glob("*.txt")):
            if file not in wanted and not _has_picture(file):
                orphans.append(file)
    return orphans


def _has_picture(file: Path) -> bool:
    """Whether a file of labels belongs to a picture, of whichever split."""
    head, _, tail = str(file).rpartition(_LABELS)
    folder = Path(head + _IMAGES + tail).parent
    return folder.is_dir() and any(folder.glob(f"{escape(file.stem)}.*"))
