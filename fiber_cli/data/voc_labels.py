"""Labels in Pascal VOC's form: an XML file for each picture, in VOC's own folders or beside the pictures.

In VOC's folders `Annotations/` has the XML files, `JPEGImages/` the pictures, and `ImageSets/Main/train.txt` the names
of those of a split, a line each.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree.ElementTree import Element

from fiber_cli.data.coco_json import CocoImage, check_names
from fiber_cli.data.file_records import FileRecords
from fiber_cli.data.image_formats import SUFFIXES
from fiber_cli.data.images import upright_size
from fiber_cli.data.labelled_set import (
    LabelledSet,
    below,
    categories_named,
    gathered,
    paths_of,
    pictures_in,
    placed_object,
    split_names,
)
from fiber_cli.data.object_columns import CocoObject
from fiber_cli.data.records import Size
from fiber_cli.data.source import BadSample
from fiber_cli.data.voc_xml import VocPicture, object_names, read_voc_object, read_voc_xml
from fiber_cli.errors import UserError, first_names
from fiber_cli.text_files import lines_of, read_text

ANNOTATIONS = "Annotations"
#: Below the data set's folder: where its lists of splits are, and its pictures.
LISTS = ("ImageSets/Main", "ImageSets", ".")
PICTURES = ("JPEGImages", "images", "Images")
_WANTED = "Pascal VOC's annotations"
#: What a list of one class has behind each name.
_LINE_OF_A_CLASS = re.compile(r"(\S+)\s+-?[01]")

#: What xmin, ymin, xmax and ymax are, and what is added to them for edges that are counted from 0.
BoxesAre = Literal["pixels", "edges", "edges_from_1"]
_TO_EDGES: Mapping[BoxesAre, tuple[int, int]] = {"pixels": (-1, 0), "edges": (0, 0), "edges_from_1": (-1, -1)}


class VocOptions(NamedTuple):
    """boxes: what the numbers of a box are, see `sources.voc`. difficult: what becomes of objects that are marked so.
    names: the categories in their order, None for all of the files below the folder, by the alphabet."""

    boxes: BoxesAre = "pixels"
    difficult: Literal["ignored", "used"] = "ignored"
    names: Sequence[str] | None = None


def annotation_files(folder: Path) -> list[Path]:
    """The XML files of a data set, in the order of their paths: those below Annotations/ where there is one."""
    annotations = folder / ANNOTATIONS
    if annotations.is_dir():
        folder = annotations
    return sorted(folder.rglob("*.xml"))


def split_list(folder: Path, split: str) -> Path | None:
    """The list of a split's names, None where there is none."""
    for lists in LISTS:
        for name in split_names(split):
            if (folder / lists / f"{name}.txt").is_file():
                return folder / lists / f"{name}.txt"
    return None


def names_in(files: Sequence[Path]) -> list[str]:
    """All names of objects in XML files, by the alphabet; files that cannot be read have none."""
    names: set[str] = set()
    for file in files:
        try:
            objects = read_voc_xml(file).objects
        except (BadSample, ValueError):
            continue  # told where the file is read for its boxes
        for element in objects:
            names.update(object_names(element))
    return sorted(names)


def read_voc(
    folder: str | Path,
    split: str | None,
    images: str | Path | None = None,
    options: VocOptions | None = None,
    *,
    lenient: bool = False,
) -> LabelledSet:
    """The pictures of a split's list, None for all that have an XML file, with their objects.

    images: the folder of the pictures, None for VOC's own and for those beside the XML files. Files and objects that
    cannot be read, and XML files without their picture, are left out, see `FileRecords` also for lenient. `UserError`
    for a folder of another form, and for a name that `options.names` lacks.
    """
    folder = Path(folder)
    options = options or VocOptions()
    everything = annotation_files(folder)
    if not everything:
        raise UserError(f"{folder}: no .xml files below this folder; give a folder with {_WANTED}")
    chosen = everything if split is None else _listed(folder, split, everything)
    records = FileRecords(
        folder, _WANTED, "an <annotation> with <object>s, each with <name> and <bndbox>", lenient=lenient
    )
    pictures = _Pictures(folder, everything, images)
    names = list(options.names) if options.names is not None else names_in(everything)
    check_names(folder, names)
    if not names:
        raise UserError(f"{folder}: none of {len(everything)} .xml files has an <object> with a <name>")
    found: list[CocoImage] = []
    elements: list[tuple[str, tuple[int, Element]]] = []
    for place, read in records.placed("XML files", zip(map(str, chosen), chosen, strict=True), pictures.read):
        for number, element in enumerate(read.objects):
            elements.append((f"{place} object[{number}]", (len(found), element)))
        found.append(CocoImage(len(found) + 1, below(read.picture, folder), read.size, {}))
    reader = _Objects(folder, found, names, options)
    objects: list[list[CocoObject | None]] = [[] for _ in found]
    for _, (number, content) in records.placed("objects", elements, reader.read):
        objects[number].append(content)
    categories = categories_named(names)
    files = gathered(found, objects, categories, records.left_out)
    remarks = (*reader.remarks(), *pictures.remarks(len(everything)))
    return LabelledSet(
        "Pascal VOC's (XML)", folder, files, paths_of(found), categories, tuple(pictures.absent), remarks
    )


def voc_files(folder: str | Path, split: str | None, images: str | Path | None = None) -> Iterator[Path]:
    """The files that `read_voc` looks at. `UserError` as of that."""
    folder = Path(folder)
    everything = annotation_files(folder)
    if not everything:
        return
    yield from everything
    listed = None if split is None else split_list(folder, split)
    if listed is not None:
        yield listed
    for pictures in _Pictures(folder, everything, images).by_stem.values():
        yield from pictures


def _listed(folder: Path, split: str, everything: Sequence[Path]) -> list[Path]:
    """The XML files of a list's names, also those that are not there."""
    file = split_list(folder, split)
    if file is None:
        looked = " or ".join(f"{lists}/{split_names(split)[0]}.txt" for lists in LISTS[:2])
        raise UserError(f"{folder}: has no list of the split {split!r}, such as {looked}; null takes all")
    by_name = {path.stem: path for path in everything}
    chosen = []
    for line in lines_of(read_text(file)):
        name = line.strip()
        of_a_class = _LINE_OF_A_CLASS.fullmatch(name)
        if of_a_class is not None and name not in by_name:
            name = of_a_class[1]
        if name:
            chosen.append(by_name.get(Path(name).stem, by_name.get(name, folder / ANNOTATIONS / f"{name}.xml")))
    return list(dict.fromkeys(chosen))


class _Picture(NamedTuple):
    picture: Path
    size: Size
    objects: list[Element]


class _Pictures:
    """Finds the pictures of XML files. absent: the XML files, of those read, that have none."""

    def __init__(self, folder: Path, annotations: Sequence[Path], images: str | Path | None):
        folders = [Path(images)] if images is not None else _picture_folders(folder, annotations)
        for each in folders:
            if not each.is_dir():
                raise UserError(f"{each}: no such folder of images; check the path and data.root")
        self.folders = folders
        self.by_stem: dict[str, list[Path]] = {}
        pictures: dict[Path, None] = {}
        for each in folders:
            pictures.update(dict.fromkeys(pictures_in(each)))
        for picture in pictures:
            self.by_stem.setdefault(picture.stem, []).append(picture)
        self.count = len(pictures)
        self.absent: list[str] = []

    def read(self, file: Path) -> _Picture:
        """An XML file with its picture. Raises `BadSample`, or ValueError."""
        content = read_voc_xml(file)
        picture = self._picture(file, content)
        return _Picture(picture, content.size or upright_size(picture), content.objects)

    def _picture(self, file: Path, content: VocPicture) -> Path:
        """The picture of the XML file's own name, else of the one that it says, which tools do not keep up."""
        told = Path(content.filename.replace("\\", "/"))
        for stem in (file.stem, told.stem, told.name):
            candidates = self.by_stem.get(stem, [])
            if candidates:
                return min(
                    candidates, key=lambda path: (path.parent != file.parent, path.name != told.name, _rank(path))
                )
        self.absent.append(str(file))
        raise BadSample(f"has no picture {told.name or file.stem} in {', '.join(map(str, self.folders))}")

    def remarks(self, annotations: int) -> Iterator[str]:
        if self.count > annotations:
            yield f"{self.count - annotations:,} pictures have no XML file, and are not used"


def _rank(picture: Path) -> int:
    return SUFFIXES.index(picture.suffix.lower())


def _picture_folders(folder: Path, annotations: Sequence[Path]) -> list[Path]:
    for name in PICTURES:
        if (folder / name).is_dir():
            return [folder / name]
    return sorted({file.parent for file in annotations})


class _Objects:
    """Reads <object>s of images of known sizes."""

    def __init__(self, folder: Path, images: Sequence[CocoImage], names: Sequence[str], options: VocOptions):
        self.folder, self.images, self.options = folder, images, options
        self.number_of = {name: number for number, name in enumerate(names)}
        self.past_the_end = 0
        self.at_zero = 0
        self.difficult = 0

    def read(self, placed: tuple[int, Element]) -> tuple[int, CocoObject | None]:
        """The image's number and its object, None for one without an area inside it."""
        number, element = placed
        read = read_voc_object(element)
        if read.name not in self.number_of:
            known = first_names(list(self.number_of))
            raise UserError(f"{self.folder}: has objects named {read.name!r}, which `names` lacks: {known}")
        size = self.images[number].size
        assert size is not None, "asked of the picture where the file does not tell"
        before, behind = _TO_EDGES[self.options.boxes]
        x1, y1, x2, y2 = read.box
        edges = (x1 + before, y1 + before, x2 + behind, y2 + behind)
        self.at_zero += min(x1, y1) == 0 and self.options.boxes != "edges"
        self.past_the_end += x2 + behind == size[1] + 1 or y2 + behind == size[0] + 1
        ignored = read.difficult and self.options.difficult == "ignored"
        self.difficult += ignored
        return number, placed_object(edges, size, self.number_of[read.name], ignored=ignored)

    def remarks(self) -> Iterator[str]:
        if self.at_zero:
            yield f"{self.at_zero:,} boxes begin at 0, where counting from 1 has none: `boxes: edges` may be meant"
        if self.past_the_end:
            yield f"{self.past_the_end:,} boxes end one pixel past the picture: `boxes: edges_from_1` may be meant"
        if self.difficult:
            yield f"{self.difficult:,} difficult objects are neither trained on nor scored"
