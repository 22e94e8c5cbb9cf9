"""Boxes in NumPy, (n, 4): from the edges that sources give to the first and last pixels that the network is told.

Sources give boxes as xyxy edges, x2 = x + width. The network's boxes name the first and the last pixel, both inside,
as published: x2 = x + width - 1, and mirroring and clipping keep to that.
"""

import numpy as np
import numpy.typing as npt

from fiber_cli.data.records import Size


def box_array(boxes: npt.ArrayLike) -> np.ndarray:
    """Boxes, or one box, as float32 (n, 4); no boxes as (0, 4)."""
    return np.array(boxes, np.float32).reshape(-1, 4)


def inclusive(boxes: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Edges (n, 4) to (boxes of first and last pixels, kept inside the picture; bool (n,), which are boxes still).

    A box of a single row or column of pixels is none, as published.
    """
    height, width = size
    last = np.array([width, height, width, height], boxes.dtype) - 1
    boxes = (boxes - np.array([0, 0, 1, 1], boxes.dtype)).clip(0, last)
    has_area = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    return boxes, has_area


def has_area_inside(boxes: np.ndarray, size: Size | None) -> np.ndarray:
    """bool (n,): which edges (n, 4) have an area inside their picture, however thin; any area where its size is not
    known."""
    height, width = size or (np.inf, np.inf)
    low = boxes[:, :2].clip(0, None) if size else boxes[:, :2]
    high = np.minimum(boxes[:, 2:], np.array([width, height]))
    return np.all(high > low, axis=1)


def scale_boxes(boxes: np.ndarray, size: Size, new: Size) -> np.ndarray:
    """Boxes of a picture of `size` (height, width) in that picture at `new`."""
    y = new[0] / size[0]
    x = new[1] / size[1]
    return boxes * np.array([x, y, x, y], boxes.dtype)


def flip_boxes(boxes: np.ndarray, width: int) -> np.ndarray:
    """Boxes of pixels in the mirrored picture."""
    mirrored = boxes.copy()
    mirrored[:, [0, 2]] = width - 1 - boxes[:, [2, 0]]
    return mirrored
