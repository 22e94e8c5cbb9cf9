"""Anchors and box coding.

Everything is in the published inclusive-pixel convention (width = x2 - x1 + 1).
Shapes: N anchors of all levels (finest first, row-major).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fiber_cli.model.kept import Kept, constant

STRIDES = (8, 16, 32, 64, 128)
#: Sides of the square anchors, in strides.
ANCHOR_SIDE = 8
#: How many sizes of pictures have their anchors kept, of a picture of 800 x 1333 pixels 340 KiB: all together 22 MiB.
KEPT_ANCHORS = 64
#: Deltas are that many times the centre's shift, in sizes of the anchor, and the logarithm of the ratio of sizes.
_SCALES = (10.0, 10.0, 5.0, 5.0)
_MAX_LOG_RATIO = math.log(1000 / 16)


def make_anchors(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """xyxy (N, 4), one square anchor per position of levels of the given (height, width), not clipped; dtype and device
    as `like`. Not to be changed: they are kept."""
    anchors: Tensor = _kept_anchors(tuple(sizes), like.dtype, like.device)
    return anchors


def _make_anchors(sizes: Sequence[tuple[int, int]], dtype: torch.dtype, device: torch.device) -> Tensor:
    levels = []
    for (height, width), stride in zip(sizes, STRIDES, strict=True):
        y = torch.arange(height, device=device, dtype=dtype) * stride
        x = torch.arange(width, device=device, dtype=dtype) * stride
        corners_HW2 = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
        offset = (stride - 1) / 2
        centres = corners_HW2.view(-1, 2) + offset
        half = (ANCHOR_SIDE * stride - 1) / 2
        levels.append(torch.cat([centres - half, centres + half], 1))
    return torch.cat(levels)


_kept_anchors = Kept(_make_anchors, KEPT_ANCHORS)


def centres_of(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy -> (..., 2)."""
    low, high = boxes.split(2, -1)
    return (low + high) / 2


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """(..., 4) (dx, dy, dw, dh) relative to anchors (..., 4) -> xyxy."""
    low, high = anchors.split(2, -1)
    anchor_size = high - low + 1
    shift, log_ratio = (deltas / constant(_SCALES, deltas.dtype, deltas.device)).split(2, -1)
    centre = shift * anchor_size + centres_of(anchors)
    size = log_ratio.clamp(max=_MAX_LOG_RATIO).exp() * anchor_size
    half = (size - 1) / 2
    return torch.cat([centre - half, centre + half], -1)
