"""Files in COCO's JSON form: images, annotations with boxes, and maybe categories."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fiber_cli.data.files import expecting, read_json
from fiber_cli.data.records import Size

Entry = dict[str, Any]
#: The category name that stands for what is of no category.
BACKGROUND = "__background__"


class CocoJson(NamedTuple):
    """images: as in the file; annotations: those of each image that count, with "box", their xyxy edges; `dropped`:
    how many were left out because they are no boxes of several pixels inside their image; `content`: the whole file."""

    images: list[Entry]
    annotations: list[list[Entry]]
    dropped: int
    content: Entry


class _Place:
    """Where in the file the reader is."""

    def __init__(self) -> None:
        self.now = "its outermost level"

    def each(self, what: str, entries: Any) -> Iterator[Any]:
        """The entries of a list, each with its place noted."""
        for number, entry in enumerate(entries):
            self.now = f"{what}[{number}]"
            yield entry


def read_coco_json(path: str | Path, wanted: str, *, labelled: bool = False) -> CocoJson:
    """Images and annotations of a file in COCO's form, crowds left out.

    labelled: every annotation must name a category of the file. `UserError` with the place of what is wrong.
    """
    content = read_json(path, wanted)
    place = _Place()
    with expecting(path, wanted, see=lambda: place.now):
        images = content["images"]
        number_of = _number_images(images, place, labelled)
        categories = _category_ids(content["categories"], place) if labelled else None
        annotations: list[list[Entry]] = [[] for _ in images]
        dropped = 0
        for annotation in place.each("annotations", content["annotations"]):
            number = number_of[annotation["image_id"]]
            box = _edges(annotation)
            if categories is not None and annotation["category_id"] not in categories:
                raise ValueError(f"there is no category {annotation['category_id']}")
            if annotation.get("iscrowd"):
                continue
            if _is_inside(box, image_size(images[number])):
                annotations[number].append({**annotation, "box": box})
            else:
                dropped += 1
    return CocoJson(images, annotations, dropped, content)


def _number_images(images: list[Entry], place: _Place, whole_ids: bool) -> dict[Any, int]:
    """The number of each image in the list, by its id."""
    number_of: dict[Any, int] = {}
    for image in place.each("images", images):
        identifier = image["id"]
        if identifier in number_of:
            raise ValueError(f"the id {identifier} comes twice")
        if whole_ids and not isinstance(identifier, int):
            raise TypeError(f"the id {identifier!r} is no whole number")
        file_name(image)
        number_of[identifier] = len(number_of)
    return number_of


def _category_ids(categories: list[Entry], place: _Place) -> set[int]:
    identifiers = set()
    for category in place.each("categories", categories):
        if not isinstance(category["id"], int) or not isinstance(category["name"], str):
            raise TypeError("the id must be a whole number, the name text")
        identifiers.add(category["id"])
    return identifiers


def _edges(annotation: Entry) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, annotation["bbox"])
    if not math.isfinite(x + y + width + height):
        raise ValueError("bbox is not finite")
    return x, y, x + width, y + height


def _is_inside(box: tuple[float, float, float, float], size: Size | None) -> bool:
    """Whether a box has several pixels, some of them in its image."""
    x1, y1, x2, y2 = box
    height, width = size or (math.inf, math.inf)
    return min(x2 - x1, y2 - y1) > 1 and x1 < width and y1 < height and x2 > 0 and y2 > 0


def image_size(image: Mapping[str, Any]) -> Size | None:
    """(height, width) as an entry of `images` has it."""
    if image.get("height") and image.get("width"):
        return image["height"], image["width"]
    return None


def file_name(image: Entry) -> str:
    """The path below the folder of images; LVIS gives COCO's address instead, whose last two parts are it."""
    if image.get("file_name"):
        return image["file_name"]
    return "/".join(image["coco_url"].split("/")[-2:])
