"""The objects of all images in a few arrays: millions of them as Python's objects would take gigabytes."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from fiber_cli.data.columns import Listed
from fiber_cli.data.masks import Box
from fiber_cli.data.ragged import Ragged
from fiber_cli.data.records import Span


class Use(IntEnum):
    """What an object is good for: training and scoring; scoring alone, because it is of at most a pixel's width or
    height, which the reference tools score and nobody trains on; or to be ignored where it is detected."""

    TRAINED = 0
    SCORED = 1
    CROWD = 2


class CocoObject(NamedTuple):
    """box: x, y, width, height in pixels; area: of the mask where the file tells, else of the box; category: its id, 0
    in files without categories; ignore: LVIS's mark; spans: of the image's caption, in files with captions."""

    box: Box
    area: float
    category: int
    use: Use
    ignore: bool
    spans: tuple[Span, ...]

    @property
    def edges(self) -> Box:
        """x1, y1, x2, y2."""
        x, y, width, height = self.box
        return x, y, x + width, y + height


class ObjectColumns(Listed[list[CocoObject]]):
    """The objects of each image, in the order in which they came.

    ends: int64 (images,), where those of each image end in all other columns, of which each has a row an object.
    boxes: float64 (n, 4); areas: float64 (n,); categories: int32 (n,), numbers in `category_ids`, which has those that
    objects have; uses: uint8 (n,), see `Use`; ignored: bool (n,); spans: rows of int32 (m, 2).
    """

    def __init__(self, images: int, placed: Iterable[tuple[int, CocoObject]]):
        """placed: the number of the image of each object, and the object."""
        numbers, categories = array("q"), array("i")
        boxes, areas = array("d"), array("d")
        uses, ignored = array("B"), array("B")
        spans, span_ends = array("i"), array("q")
        number_of: dict[int, int] = {}
        for image, each in placed:
            numbers.append(image)
            boxes.extend(each.box)
            areas.append(each.area)
            categories.append(number_of.setdefault(each.category, len(number_of)))
            uses.append(each.use)
            ignored.append(each.ignore)
            for span in each.spans:
                spans.extend(span)
            span_ends.append(len(spans) // 2)
        of_image = np.array(numbers, np.int64)
        order = np.argsort(of_image, kind="stable")
        self.category_ids = list(number_of)
        self.ends = np.cumsum(np.bincount(of_image, minlength=images))
        self.boxes = np.frombuffer(boxes, np.float64).reshape(-1, 4)[order]
        self.areas = np.frombuffer(areas, np.float64)[order]
        self.categories = np.frombuffer(categories, np.int32)[order]
        self.uses = np.frombuffer(uses, np.uint8)[order]
        self.ignored = np.frombuffer(ignored, np.uint8)[order].astype(np.bool_)
        all_spans = np.array(spans, np.int32).reshape(-1, 2)
        self.spans = Ragged.of(np.array(span_ends, np.int64), all_spans).take(order)

    @classmethod
    def of(cls, rows: Sequence[Sequence[CocoObject]]) -> "ObjectColumns":
        """The objects of each image as they are, or in columns."""
        return rows if isinstance(rows, cls) else cls(len(rows), _placed(rows))

    def __len__(self) -> int:
        return len(self.ends)

    def _at(self, number: int) -> list[CocoObject]:
        start = int(self.ends[number - 1]) if number else 0
        return [self.object(place) for place in range(start, int(self.ends[number]))]

    def object(self, place: int) -> CocoObject:
        """By its place among all."""
        x, y, width, height = self.boxes[place].tolist()
        return CocoObject(
            (x, y, width, height),
            float(self.areas[place]),
            self.category_ids[self.categories[place]],
            Use(self.uses[place]),
            bool(self.ignored[place]),
            tuple((start, end) for start, end in self.spans[place].tolist()),
        )

    @property
    def trained(self) -> np.ndarray:
        """bool (n,): which objects are trained on."""
        return self.uses == Use.TRAINED

    def column(self, values: np.ndarray, chosen: Sequence[int]) -> Ragged:
        """One of the columns, or what is made of it, as rows of the chosen images."""
        ragged = Ragged.of(self.ends, values)
        if list(chosen) == list(range(len(self))):
            return ragged
        return ragged.take(chosen)


def _placed(rows: Sequence[Sequence[CocoObject]]) -> Iterator[tuple[int, CocoObject]]:
    for number, row in enumerate(rows):
        for each in row:
            yield number, each
