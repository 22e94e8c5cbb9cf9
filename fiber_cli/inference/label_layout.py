"""Where the labels of boxes stand in a picture: beside their box, and over as little else as can be.

Boxes and fields are xyxy in pixels.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Field(NamedTuple):
    """A label's rectangle."""

    left: float
    top: float
    right: float
    bottom: float


#: What a pixel of a field costs over another label, and over the content of a box, its own or another.
_OVER_LABEL, _OVER_BOX = 10.0, 1.0
#: So much of a field is gained by a place that comes earlier in `_places`.
_PREFERENCE = 0.02


def lay_out(
    boxes: Sequence[tuple[float, float, float, float]],
    sizes: Sequence[tuple[float, float]],
    picture: tuple[int, int],
) -> list[Field]:
    """A field of each label's size, (width, height), beside its box and inside the picture, (width, height).

    The labels are placed in the order given, so that the first ones, the best, get the freest places.
    """
    fields: list[Field] = []
    for box, size in zip(boxes, sizes, strict=True):
        places = [_inside(place, picture) for place in _places(box, size)]
        costs = []
        for rank, place in enumerate(places):
            costs.append(_cost(place, fields, boxes) + _PREFERENCE * rank * size[0] * size[1])
        fields.append(places[costs.index(min(costs))])
    return fields


def _places(box: tuple[float, float, float, float], size: tuple[float, float]) -> Iterator[Field]:
    """Fields around a box: above and below it, beside it, and inside its upper and lower edge."""
    left, top, right, bottom = box
    width, height = size
    for y in (top - height, bottom):
        for x in (left, right - width, (left + right - width) / 2):
            yield Field(x, y, x + width, y + height)
    for x in (right, left - width):
        for y in (top, bottom - height):
            yield Field(x, y, x + width, y + height)
    for y in (top, bottom - height):
        yield Field(left, y, left + width, y + height)


def _inside(field: Field, picture: tuple[int, int]) -> Field:
    """The field moved into the picture, as far as it fits."""
    dx = min(0, picture[0] - field.right)
    dx = max(dx, -field.left)
    dy = min(0, picture[1] - field.bottom)
    dy = max(dy, -field.top)
    return Field(field.left + dx, field.top + dy, field.right + dx, field.bottom + dy)


def _cost(field: Field, labels: Sequence[Field], boxes: Sequence[tuple[float, float, float, float]]) -> float:
    over_labels = sum(_common(field, label) for label in labels)
    over_boxes = sum(_common(field, Field(*box)) for box in boxes)
    return _OVER_LABEL * over_labels + _OVER_BOX * over_boxes


def _common(a: Field, b: Field) -> float:
    """The area that two rectangles share."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    return max(width, 0) * max(height, 0)
