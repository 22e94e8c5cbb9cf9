"""Files in COCO's JSON form: images, annotations with boxes, and maybe categories or captions with spans.

What is read here, and nothing else of the file, is what is trained on and what is scored.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from fiber_cli.data.category_names import words_apart
from fiber_cli.data.file_records import FileRecords, Once, Ownerless
from fiber_cli.data.files import expecting
from fiber_cli.data.json_lists import ListInFile, read_json_lists
from fiber_cli.data.masks import LONGEST_SIDE, Box, mask_box
from fiber_cli.data.object_columns import CocoObject, ObjectColumns, Use
from fiber_cli.data.records import Size, Span
from fiber_cli.data.values import finite_number, flag, identifier, listed, path_text, some_text, text, whole_number
from fiber_cli.errors import UserError, first_names

Entry = dict[str, Any]
#: The category name that stands for what is of no category.
BACKGROUND = "__background__"
_FREQUENCIES = (None, "r", "c", "f")
#: What LVIS says of an image: categories that were looked for and are not there, and those of which not all are marked.
LVIS_LISTS = frozenset({"neg_category_ids", "not_exhaustive_category_ids"})
#: What is kept of an entry of `images` beside its id, file and size.
_OF_IMAGES = frozenset({"caption", "dataset_name"}) | LVIS_LISTS
#: How many records are looked at to tell what a file is.
_FIRST = 100


class CocoImage(NamedTuple):
    """identifier: the file's own; file: below the folder of images; entry: of what the file says of it that which
    `_OF_IMAGES` names."""

    identifier: int | str
    file: str
    size: Size | None
    entry: Entry


class CocoCategory(NamedTuple):
    """frequency: LVIS's "r", "c" or "f", None elsewhere."""

    identifier: int
    name: str
    supercategory: str | None
    frequency: str | None


class CocoJson(NamedTuple):
    """objects: those of each image, in columns where there may be millions. annotated: whether the file has annotations
    at all; federated: whether it has LVIS's lists and frequencies. without_area: how many objects are left out because
    they have no area inside their image; thin: how many there are of `Use.SCORED`; left_out: (place, reason) of bad
    records."""

    images: list[CocoImage]
    objects: Sequence[list[CocoObject]]
    categories: list[CocoCategory]
    annotated: bool
    federated: bool
    without_area: int
    thin: int
    left_out: list[tuple[str, str]]

    @property
    def trained(self) -> list[list[CocoObject]]:
        """The objects of each image that are trained on."""
        return [[each for each in of_image if each.use is Use.TRAINED] for of_image in self.objects]

    @property
    def columns(self) -> ObjectColumns:
        """The objects of each image in columns."""
        return ObjectColumns.of(self.objects)


def read_coco_json(
    path: str | Path,
    wanted: str,
    *,
    labelled: bool = False,
    captioned: bool = False,
    file_of: Callable[[Entry], str] | None = None,
    lenient: bool = False,
) -> CocoJson:
    """What a file in COCO's form says, in one form: numbers may be text, `area` and `iscrowd` null or missing, and the
    box is that of the mask where there is no other. Bad records are left out, see `FileRecords`.

    labelled: every annotation names a category of the file. captioned: images have a `caption`, annotations spans of
    it as `tokens_positive`. file_of: an image's path, `file_name` without it. lenient: many bad records do not refuse
    the file. `UserError` for a file of another form, and for ids and category names that come twice, in files without
    captions for file names too.
    """
    content = read_json_lists(path, wanted)
    records = FileRecords(path, wanted, lenient=lenient)
    image_records = records.entries(content, "images")
    categories = _categories(content, path, wanted) if labelled else []
    federated = _is_federated(image_records, categories, path)
    image_reader = _ImageReader(path, labelled, captioned, federated, file_of or file_name)
    images = [image for _, image in records.each("images", image_records, image_reader.read)]
    annotated = content.get("annotations") is not None
    annotations = records.entries(content, "annotations") if annotated else []
    once = Once(path, "the id", "annotations")
    reader = _ObjectReader(images, image_reader.known, categories if labelled else None, captioned, once)
    counted = _Counted(records.each("annotations", annotations, reader.read, owners=len(image_reader.known)))
    objects = ObjectColumns(len(images), counted.objects())
    left_out = records.left_out
    return CocoJson(images, objects, categories, annotated, federated, counted.without_area, counted.thin, left_out)


class _Counted:
    """Counts what annotations are while their objects are taken."""

    def __init__(self, annotations: "Iterable[tuple[int, _Placed | None]]"):
        self.annotations = annotations
        self.without_area = self.thin = 0

    def objects(self) -> Iterator[tuple[int, CocoObject]]:
        """The number of the image of each object, and the object."""
        for _, placed in self.annotations:
            if placed is None:
                continue
            if placed.content is None:
                self.without_area += 1
                continue
            self.thin += placed.content.use is Use.SCORED
            yield placed.image, placed.content


def _is_federated(images: Iterable[Any], categories: list[CocoCategory], path: str | Path) -> bool:
    """Whether images have LVIS's lists of what was looked for, and categories its frequencies; `UserError` where some
    categories have none, because LVIS's AP needs them of all."""
    with_lists = any(isinstance(image, dict) and image.keys() >= LVIS_LISTS for image in images)
    without = [category.name for category in categories if category.frequency is None]
    if not with_lists or len(without) == len(categories):
        return False
    if without:
        raise UserError(f"{path}: LVIS's AP needs the frequency of every category; without it: {first_names(without)}")
    return True


class _ImageReader:
    """Reads entries of `images`. known: the ids of all of them, bad ones too."""

    def __init__(
        self, path: str | Path, whole_ids: bool, captioned: bool, federated: bool, file_of: Callable[[Entry], str]
    ):
        self.known = Once(path, "the id", "images")
        # In files with captions an image comes once for each of them.
        self.files = None if captioned else Once(path, "the file name", "images")
        self.whole_ids, self.captioned, self.federated, self.file_of = whole_ids, captioned, federated, file_of

    def read(self, image: Entry) -> CocoImage:
        own = self.known.add(identifier(image["id"]))
        if self.whole_ids and not isinstance(own, int):
            raise TypeError(f"the id {own!r} is no whole number")
        if self.captioned:
            text(image["caption"], "caption")
        if self.federated:
            image = {**image, **{name: _whole_numbers(image[name], name) for name in LVIS_LISTS}}
        kept = {name: image[name] for name in _OF_IMAGES & image.keys()}
        read = CocoImage(own, self.file_of(image), image_size(image), kept)
        if self.files is not None:
            self.files.add(read.file)
        return read


def _whole_numbers(values: Any, what: str) -> list[int]:
    return [whole_number(value, what) for value in listed(values, what)]


class _Placed(NamedTuple):
    """An object and the number of its image; None for one without an area in it."""

    image: int
    content: CocoObject | None


class _ObjectReader:
    """Reads entries of `annotations`. known: ids of images, also of those that are left out. once: the ids of the
    annotations, which are looked at in files with categories."""

    def __init__(
        self,
        images: list[CocoImage],
        known: Once,
        categories: list[CocoCategory] | None,
        captioned: bool,
        once: Once,
    ):
        self.images, self.known, self.captioned, self.once = images, known, captioned, once
        self.number_of = {image.identifier: number for number, image in enumerate(images)}
        self.categories = None if categories is None else {category.identifier for category in categories}

    def read(self, annotation: Entry) -> _Placed | None:
        """None for an object of an image that is left out."""
        of_image = identifier(annotation["image_id"], "image_id")
        if of_image not in self.number_of and of_image in self.known:
            return None
        if of_image not in self.number_of:
            raise Ownerless(f"image {of_image!r}")
        number = self.number_of[of_image]
        image = self.images[number]
        category = 0 if self.categories is None else self._category(annotation)
        is_crowd = flag(annotation.get("iscrowd"), "iscrowd")
        ignore = flag(annotation.get("ignore"), "ignore")
        spans = tuple(_spans(annotation, image.entry["caption"])) if self.captioned else ()
        box = _box(annotation, image.size)
        if self.categories is not None and annotation.get("id") is not None:
            self.once.add(identifier(annotation["id"]))
        use = None if box is None else object_use(box, image.size)
        if box is None or use is None:
            return _Placed(number, None)
        use = Use.CROWD if is_crowd else use
        return _Placed(number, CocoObject(box, _area(annotation, box), category, use, ignore, spans))

    def _category(self, annotation: Entry) -> int:
        category = whole_number(annotation["category_id"], "category_id")
        assert self.categories is not None
        if category not in self.categories:
            raise ValueError(f"there is no category {category}")
        return category


def _categories(content: Entry, path: str | Path, wanted: str) -> list[CocoCategory]:
    """A category that cannot be read refuses the file: its boxes would be no one's."""
    once = Once(path, "the id", "categories")
    categories: list[CocoCategory] = []
    with expecting(path, wanted, see=lambda: f"categories[{len(categories)}]"):
        for category in content["categories"]:
            own = whole_number(category["id"], "the id")
            name = some_text(category["name"], "the name")
            frequency = category.get("frequency")
            if frequency not in _FREQUENCIES:
                raise ValueError(f"the frequency must be one of r, c and f, it is {frequency!r}")
            parent = category.get("supercategory")
            if parent is not None:
                text(parent, "the supercategory")
            categories.append(CocoCategory(once.add(own), name, parent, frequency))
    return categories


def _box(annotation: Entry, size: Size | None) -> Box | None:
    """The annotation's box, else its mask's; None where it says that it has none."""
    box, segmentation = annotation.get("bbox"), annotation.get("segmentation")
    if box and segmentation and _is_blank(box):
        # A tool wrote it for a mask whose box it did not know; a mask that is none leaves the box as it is.
        with contextlib.suppress(LookupError, TypeError, ValueError):
            return mask_box(segmentation, size)
    if box:
        x, y, width, height = (finite_number(value, "bbox") for value in listed(box, "bbox"))
        if not math.isfinite(x + width) or not math.isfinite(y + height):
            raise ValueError("bbox is not finite")
        return x, y, width, height
    if segmentation:
        return mask_box(segmentation, size)
    if box is None:
        raise ValueError("there is neither a bbox nor a segmentation")
    return None


def _is_blank(box: Any) -> bool:
    return isinstance(box, list) and all(value is None or value == 0 for value in box)


def _area(annotation: Entry, box: Box) -> float:
    _, _, width, height = box
    if annotation.get("area") is None:
        return width * height
    area = finite_number(annotation["area"], "area")
    if area < 0:
        raise ValueError(f"area must not be negative, it is {area}")
    return area


def _has_area(box: Box, size: Size | None) -> bool:
    """Whether some of a box is inside its image."""
    x, y, box_width, box_height = box
    height, width = size or (math.inf, math.inf)
    is_inside = x < width and y < height and x + box_width > 0 and y + box_height > 0
    return is_inside and box_width > 0 and box_height > 0


def object_use(box: Box, size: Size | None) -> Use | None:
    """What an object with this box is good for, if it is no crowd; None where it has no area inside its image."""
    if not _has_area(box, size):
        return None
    _, _, width, height = box
    return Use.TRAINED if min(width, height) > 1 else Use.SCORED


def _spans(annotation: Entry, caption: str) -> Iterator[Span]:
    """Those of `tokens_positive`; ValueError for one outside the caption."""
    for pair in listed(annotation["tokens_positive"], "tokens_positive"):
        start, end = listed(pair, "a span of tokens_positive")
        span = whole_number(start, "tokens_positive"), whole_number(end, "tokens_positive")
        if not 0 <= span[0] < span[1] <= len(caption):
            raise ValueError("a span of tokens_positive is not inside the caption")
        yield span


def image_size(image: Mapping[str, Any]) -> Size | None:
    """(height, width) as an entry of `images` has it; None where it does not tell both. ValueError for sides that are
    not positive or longer than `LONGEST_SIDE`."""
    height, width = image.get("height"), image.get("width")
    if height is None or width is None:
        return None
    size = whole_number(height, "height"), whole_number(width, "width")
    if min(size) < 1:
        raise ValueError(f"height and width must be positive, they are {size[0]} and {size[1]}")
    if max(size) > LONGEST_SIDE:
        raise ValueError(f"height or width is more than {LONGEST_SIDE:,} pixels")
    return size


def file_name(image: Entry) -> str:
    """The path below the folder of images; LVIS gives COCO's address instead, whose last two parts are it."""
    if image.get("file_name") is not None:
        return path_text(image["file_name"], "file_name")
    return "/".join(path_text(image["coco_url"], "coco_url").split("/")[-2:])


def has_captions(content: Any) -> bool:
    """Whether the content of a file in COCO's form is of MDETR's kind, as most of its first records tell."""
    told = []
    for what, key in (("annotations", "tokens_positive"), ("images", "caption")):
        records = content.get(what) if isinstance(content, dict) else None
        first = islice(records, _FIRST) if isinstance(records, list | ListInFile) else ()
        for record in first:
            if isinstance(record, dict):
                told.append(key in record)
    return 2 * sum(told) > len(told)


def check_names(path: str | Path, names: list[str]) -> None:
    """`UserError` for names of categories of which two are the same words, parentheses included: LVIS has
    `bow_(weapon)` beside another bow."""
    once = Once(path, "the name", "categories")
    for name in names:
        once.add(words_apart(name))
