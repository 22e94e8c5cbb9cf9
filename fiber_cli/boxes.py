"""Boxes: xyxy in pixels, tensors (..., 4).

`inclusive=True` is the published detector's convention, in which a box ends with its last pixel: width = x2 - x1 + 1.
"""

import torch
from torch import Tensor

from fiber_cli.suppression import nms, nms_by_label


def areas(
    a_low: Tensor, a_high: Tensor, b_low: Tensor, b_high: Tensor, *, inclusive: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the intersection, the union and the common hull of boxes, given by their low and high corners (..., 2), whose
    leading dimensions broadcast. An inverted box has the area 0."""

    def area(low: Tensor, high: Tensor) -> Tensor:
        # Not prod, whose gradient is twelve operations.
        width, height = (high - low + inclusive).clamp(min=0).unbind(-1)
        return width * height

    inter = area(torch.maximum(a_low, b_low), torch.minimum(a_high, b_high))
    union = area(a_low, a_high) + area(b_low, b_high) - inter
    return inter, union, area(torch.minimum(a_low, b_low), torch.maximum(a_high, b_high))


def iou(a: Tensor, b: Tensor, *, inclusive: bool = False) -> Tensor:
    """Intersection over union of boxes whose leading dimensions broadcast. Two empty boxes give NaN."""
    inter, union, _ = areas(*a.split(2, -1), *b.split(2, -1), inclusive=inclusive)
    return inter / union


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes whose leading dimensions broadcast, in [-1, 1]. An inverted `a` counts as empty; the
    published 1e-7 on both denominators keeps empty boxes finite."""
    low, high = a.split(2, -1)
    inter, union, hull = areas(low, torch.maximum(low, high), *b.split(2, -1))
    union, hull = union + 1e-7, hull + 1e-7
    return inter / union - (hull - union) / hull


def class_nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Kept rows, int64, best score first: a box goes where a better one of its label overlaps it by more than
    `threshold`, in the inclusive convention.

    Float64, because the offset by which torchvision keeps labels apart would round small boxes away in float32.
    """
    low, high = boxes.double().split(2, -1)
    edges = torch.cat([low, high + 1], -1)
    return nms_by_label(edges, scores.double(), labels, threshold)


def agnostic_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Kept rows, int64, best score first, of equal ones the earlier: a box (N, 4) goes where a better one overlaps it
    by more than `threshold`, whatever their labels."""
    return nms(boxes.double(), scores.double(), threshold)
