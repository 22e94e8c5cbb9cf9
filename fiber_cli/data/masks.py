"""The boxes of masks in COCO's forms: polygons, run lengths, and run lengths as text."""

import math
from typing import Any

from fiber_cli.data.records import Size
from fiber_cli.data.values import finite_number, listed, whole_number

#: Left and upper edge, width and height, in pixels.
Box = tuple[float, float, float, float]

#: Pixels of a side of an image: more than any has.
LONGEST_SIDE = 1_000_000
#: What pycocotools counts pixels in.
_MOST_PIXELS = 2**32 - 1
#: Pixels of the edges of a polygon together, for each of which pycocotools keeps a hundred bytes.
_LONGEST_OUTLINE = 1_000_000
_CORNERS = 3
_COUNTS = "counts of the segmentation"
#: Run lengths as text: a character has five bits of a number, and a sixth where more of it follow.
_FIRST_CHARACTER = 48
_BITS, _DATA, _SIGN, _CONTINUES = 5, 0x1F, 0x10, 0x20
_MOST_BITS = 64
#: How many run lengths in front are no differences.
_ABSOLUTE = 3


def mask_box(segmentation: Any, size: Size | None) -> Box:
    """The box around a mask's pixels, by pycocotools. size: of the image, which run lengths must have and polygons may
    do without.

    TypeError, KeyError or ValueError for what is no mask.
    """
    from pycocotools import mask  # late: reading recipes and pictures needs no masks

    is_polygons = isinstance(segmentation, list)
    encoded = _from_polygons(segmentation, size) if is_polygons else _from_run_lengths(segmentation, size)
    x, y, width, height = mask.toBbox(encoded).tolist()
    return x, y, width, height


def _from_polygons(polygons: list[Any], size: Size | None) -> Any:
    """A mask of all polygons, each x and y in turn."""
    from pycocotools import mask

    checked: list[list[float]] = []
    for polygon in polygons:
        points = [finite_number(coordinate, "segmentation") for coordinate in listed(polygon, "a polygon")]
        if len(points) < 2 * _CORNERS or len(points) % 2:
            raise ValueError("a polygon of the segmentation needs x and y of three corners or more")
        _check_outline(points)
        checked.append(points)
    height, width = size or _extent(checked)
    _check_size(height, width)
    return mask.merge(mask.frPyObjects(checked, height, width))


def _check_outline(points: list[float]) -> None:
    """ValueError for a polygon that is too far out or too long to be drawn."""
    if max(map(abs, points)) > LONGEST_SIDE:
        raise ValueError(f"a corner of the segmentation is more than {LONGEST_SIDE:,} pixels out")
    length = 0.0
    for along in (points[::2], points[1::2]):
        for number, coordinate in enumerate(along):
            length += abs(coordinate - along[number - 1])
    if length > _LONGEST_OUTLINE:
        raise ValueError(f"a polygon of the segmentation is more than {_LONGEST_OUTLINE:,} pixels around")


def _check_size(height: int, width: int) -> None:
    """ValueError for the size of no mask."""
    if min(height, width) < 1:
        raise ValueError("size of the segmentation must be positive")
    if max(height, width) > LONGEST_SIDE or height * width > _MOST_PIXELS:
        raise ValueError(f"size of the segmentation is {height:,} by {width:,}, which is no image's")


def _extent(polygons: list[list[float]]) -> Size:
    """(height, width) of an image that just holds the polygons."""
    right = max(max(points[::2]) for points in polygons)
    bottom = max(max(points[1::2]) for points in polygons)
    return max(1, math.ceil(bottom)), max(1, math.ceil(right))


def _from_run_lengths(segmentation: Any, image: Size | None) -> Any:
    height, width = (
        whole_number(side, "size of the segmentation")
        for side in listed(segmentation["size"], "size of the segmentation")
    )
    counts = segmentation["counts"]
    _check_size(height, width)
    if image is not None and (height, width) != image:
        raise ValueError(f"size of the segmentation is {[height, width]}, height and width of its image {list(image)}")
    if isinstance(counts, str):
        _check_runs(runs_of_text(counts), height, width)
        return {"size": [height, width], "counts": counts.encode()}
    lengths = [whole_number(length, _COUNTS) for length in listed(counts, _COUNTS)]
    _check_runs(lengths, height, width)
    from pycocotools import mask

    return mask.frPyObjects({"size": [height, width], "counts": lengths}, height, width)


def _check_runs(lengths: list[int], height: int, width: int) -> None:
    """ValueError for lengths that are not those of a mask of this size, of which pycocotools makes some box."""
    if not lengths or min(lengths) < 0:
        raise ValueError(f"{_COUNTS} must be lengths of 0 or more")
    if sum(lengths) != height * width:
        raise ValueError(f"{_COUNTS} are {sum(lengths)} pixels, its size has {height * width}")


def runs_of_text(counts: str) -> list[int]:
    """The run lengths that COCO's text form says, ValueError for a text that is none.

    A number is a group of characters, the lowest five bits first; from the fourth number on it is the difference from
    the one before the last.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - _FIRST_CHARACTER
        if not 0 <= bits < 2 * _CONTINUES:
            raise ValueError(f"{_COUNTS} has the character {character!r}, which no run lengths as text have")
        value |= (bits & _DATA) << shift
        shift += _BITS
        if shift > _MOST_BITS:
            raise ValueError(f"{_COUNTS} have a number of more than {_MOST_BITS} bits")
        if bits & _CONTINUES:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        if len(lengths) >= _ABSOLUTE:
            value += lengths[-2]
        lengths.append(value)
        value = shift = 0
    if shift:
        raise ValueError(f"{_COUNTS} end within a number")
    return lengths
