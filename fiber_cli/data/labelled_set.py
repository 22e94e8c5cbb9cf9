"""A split of pictures with boxes, as the readers of every form of labels give it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fiber_cli.data.category_names import words_apart
from fiber_cli.data.coco_json import CocoCategory, CocoImage, CocoJson, object_use
from fiber_cli.data.file_records import say_once
from fiber_cli.data.image_formats import SUFFIXES, UNREAD_SUFFIXES, count_endings
from fiber_cli.data.object_columns import CocoObject, Use
from fiber_cli.data.records import Size

#: What tools call the splits.
SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
#: An edge so near to a whole pixel, in pixels, is that: labels are drawn on whole pixels, and shares of six decimals
#: say no more of a large picture.
_WHOLE = 0.01


class LabelledSet(NamedTuple):
    """A split of a data set of boxes with categories.

    form: what its files are, in words. folder: what the images' paths are below. files: its images, as the annotations
    name them, and objects. paths: where the images lie below the folder, or anywhere if absolute. categories: in the
    order of their labels. absent: the places, as in `files.left_out`, of pictures that are named and are not there.
    remarks: what is strange in the files although they can be read, in words.
    """

    form: str
    folder: Path
    files: CocoJson
    paths: Sequence[str]
    categories: Sequence[CocoCategory]
    absent: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def say_remarks(name: str, labelled: LabelledSet) -> None:
    """What is strange in the files of the set of that name, on standard error."""
    for remark in labelled.remarks:
        say_once(f"{name}: {remark}")


def split_names(split: str) -> tuple[str, ...]:
    """The names under which tools keep a split, its own first."""
    for names in SPLIT_NAMES.values():
        if split in names:
            return tuple(dict.fromkeys((split, *names)))
    return (split,)


def categories_named(names: Sequence[str]) -> list[CocoCategory]:
    """Categories of these names, numbered from 0."""
    return [CocoCategory(number, name, None, None) for number, name in enumerate(names)]


def paths_of(images: Sequence[CocoImage]) -> list[str]:
    """The paths of images whose annotations name them as they lie on disk."""
    return [image.file for image in images]


def gathered(
    images: Sequence[CocoImage],
    objects: Sequence[Sequence[CocoObject | None]],
    categories: Sequence[CocoCategory],
    left_out: list[tuple[str, str]],
) -> CocoJson:
    """What a reader has found, in the form of COCO's. objects: of each image, None for each that has no area inside
    it."""
    placed: list[list[CocoObject]] = []
    without_area = 0
    thin = 0
    for of_image in objects:
        placed.append([])
        for each in of_image:
            if each is None:
                without_area += 1
            else:
                placed[-1].append(each)
                thin += each.use is Use.SCORED
    return CocoJson(list(images), placed, list(categories), True, False, without_area, thin, left_out)


def placed_object(
    edges: tuple[float, float, float, float], size: Size, category: int, *, ignored: bool = False
) -> CocoObject | None:
    """An object by its edges x1, y1, x2, y2 in pixels; None for one without an area inside its picture. ignored: it is
    neither trained on nor scored, as COCO's crowds. ValueError for edges in the wrong order."""
    x1, y1, x2, y2 = map(_whole_pixels, edges)
    if x2 < x1 or y2 < y1:
        raise ValueError(f"the box ends at ({x2:g}, {y2:g}), before its beginning ({x1:g}, {y1:g})")
    box = (x1, y1, x2 - x1, y2 - y1)
    use = object_use(box, size)
    if use is None:
        return None
    return CocoObject(box, box[2] * box[3], category, Use.CROWD if ignored else use, ignored, ())


def _whole_pixels(edge: float) -> float:
    nearest = float(round(edge))
    return nearest if abs(edge - nearest) <= _WHOLE else edge


def in_order_of_names(labelled: LabelledSet) -> LabelledSet:
    """The same set in one order whatever its form: categories by their names, images by their files' names, both
    numbered from 1, objects by their categories and boxes; so the same pictures and boxes train and are measured alike
    in every form."""
    by_name = sorted(labelled.categories, key=lambda category: (words_apart(category.name), category.name))
    number_of = {}
    categories = []
    for number, category in enumerate(by_name, 1):
        number_of[category.identifier] = number
        categories.append(category._replace(identifier=number))
    images = labelled.files.images
    in_order = sorted(range(len(images)), key=lambda i: (Path(images[i].file).name, images[i].file))
    ordered_images = []
    ordered_objects = []
    paths = []
    for number, i in enumerate(in_order, 1):
        paths.append(labelled.paths[i])
        ordered_images.append(images[i]._replace(identifier=number))
        objects = [each._replace(category=number_of[each.category]) for each in labelled.files.objects[i]]
        ordered_objects.append(sorted(objects, key=lambda each: (each.category, each.box)))
    files = labelled.files._replace(images=ordered_images, objects=ordered_objects, categories=categories)
    return labelled._replace(files=files, paths=paths, categories=categories)


def pictures_in(folder: Path) -> list[Path]:
    """All picture files below a folder, in the order of their paths, hidden ones apart; those of formats that are not
    read are counted on standard error."""
    pictures = []
    unread = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(parent) in seen:  # a link leads back
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            ending = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if ending in SUFFIXES:
                pictures.append(Path(parent, name))
            elif ending in UNREAD_SUFFIXES:
                unread.append(ending)
    if unread:
        say_once(f"{folder}: {len(unread)} pictures of formats that are not read ({count_endings(unread)})")
    return sorted(pictures)


def below(file: Path, folder: Path) -> str:
    """A file's path below a folder, or its whole path where it lies elsewhere."""
    try:
        return file.relative_to(folder).as_posix()
    except ValueError:
        return str(file)
