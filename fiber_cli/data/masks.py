"""The boxes of masks in COCO's forms: polygons, run lengths, and run lengths as text."""

import math
from typing import Any

from pycocotools import mask

from fiber_cli.data.records import Size
from fiber_cli.data.values import finite_number, whole_number

#: Left and upper edge, width and height, in pixels.
Box = tuple[float, float, float, float]

_CORNERS = 3


def mask_box(segmentation: Any, size: Size | None) -> Box:
    """The box around a mask's pixels, by pycocotools. size: of the image, which polygons may do without.

    TypeError, KeyError or ValueError for what is no mask.
    """
    is_polygons = isinstance(segmentation, list)
    encoded = _from_polygons(segmentation, size) if is_polygons else _from_run_lengths(segmentation)
    x, y, width, height = mask.toBbox(encoded).tolist()
    return x, y, width, height


def _from_polygons(polygons: list[Any], size: Size | None) -> Any:
    """A mask of all polygons, each x and y in turn."""
    checked: list[list[float]] = []
    for polygon in polygons:
        points = [finite_number(coordinate, "segmentation") for coordinate in polygon]
        if len(points) < 2 * _CORNERS or len(points) % 2:
            raise ValueError("a polygon of the segmentation needs x and y of three corners or more")
        checked.append(points)
    height, width = size or _extent(checked)
    return mask.merge(mask.frPyObjects(checked, height, width))


def _extent(polygons: list[list[float]]) -> Size:
    """(height, width) of an image that just holds the polygons."""
    right = max(max(points[::2]) for points in polygons)
    bottom = max(max(points[1::2]) for points in polygons)
    return max(1, math.ceil(bottom)), max(1, math.ceil(right))


def _from_run_lengths(segmentation: Any) -> Any:
    height, width = (whole_number(side, "size of the segmentation") for side in segmentation["size"])
    counts = segmentation["counts"]
    if min(height, width) < 1:
        raise ValueError("size of the segmentation must be positive")
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts.encode()}
    lengths = [whole_number(length, "counts of the segmentation") for length in counts]
    # pycocotools would read a negative length as a huge one.
    if not lengths or min(lengths) < 0 or sum(lengths) > height * width:
        raise ValueError("counts of the segmentation do not fit its size")
    return mask.frPyObjects({"size": [height, width], "counts": lengths}, height, width)
