"""Boxes: xyxy in pixels, tensors (..., 4).

`inclusive=True` is the published detector's convention, in which a box ends with its last pixel: width = x2 - x1 + 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms


def xyxy_to_xywh(boxes: Tensor, *, inclusive: bool = False) -> Tensor:
    low, high = boxes.split(2, -1)
    return torch.cat([low, high - low + inclusive], -1)


def _area(low: Tensor, high: Tensor, inclusive: bool = False) -> Tensor:
    return (high - low + inclusive).clamp(min=0).prod(-1)


def iou(a: Tensor, b: Tensor, *, inclusive: bool = False) -> Tensor:
    """Intersection over union of boxes whose leading dimensions broadcast. Two empty boxes give NaN."""
    (a_low, a_high), (b_low, b_high) = a.split(2, -1), b.split(2, -1)
    inter = _area(torch.maximum(a_low, b_low), torch.minimum(a_high, b_high), inclusive)
    return inter / (_area(a_low, a_high, inclusive) + _area(b_low, b_high, inclusive) - inter)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes whose leading dimensions broadcast, in [-1, 1]. An inverted `a` counts as empty; the
    published 1e-7 on both denominators keeps empty boxes finite."""
    (a_low, a_high), (b_low, b_high) = a.split(2, -1), b.split(2, -1)
    a_high = torch.maximum(a_low, a_high)
    inter = _area(torch.maximum(a_low, b_low), torch.minimum(a_high, b_high))
    union = _area(a_low, a_high) + _area(b_low, b_high) - inter + 1e-7
    hull = _area(torch.minimum(a_low, b_low), torch.maximum(a_high, b_high)) + 1e-7
    return inter / union - (hull - union) / hull


def class_nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Kept rows, int64, best score first: a box goes where a better one of its label overlaps it by more than
    `threshold`, in the inclusive convention.

    Float64, because the offset by which torchvision keeps labels apart would round small boxes away in float32.
    """
    return batched_nms(boxes.double() + boxes.new_tensor([0, 0, 1, 1]), scores.double(), labels, threshold)
