"""Anchors, box coding, ATSS assignment and the sums behind the losses.

Everything is in the published inclusive-pixel convention (width = x2 - x1 + 1) except the GIoU.
Shapes: B images, N anchors of all levels (finest first, row-major), G true boxes of one image, L text length.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fiber_cli.boxes import giou, iou

STRIDES = (8, 16, 32, 64, 128)
#: Sides of the square anchors, in strides.
ANCHOR_SIDE = 8
#: Candidates per level and true box.
TOPK = 9
_SCALE = (10.0, 10.0, 5.0, 5.0)
_MAX_LOG_RATIO = math.log(1000 / 16)


class LossSums(NamedTuple):
    """Sums over one rank's batch; the first three carry the graph. `box` is weighted by the centerness targets,
    whose sum is `centerness_target`; `positives` counts the matched anchors."""

    token: Tensor
    box: Tensor
    centerness: Tensor
    centerness_target: Tensor
    positives: Tensor


def make_anchors(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """xyxy (N, 4), one square anchor per place of levels of the given (height, width), not clipped; dtype and device
    as `like`."""
    levels = []
    for (height, width), stride in zip(sizes, STRIDES, strict=True):
        y, x = (torch.arange(side, device=like.device, dtype=like.dtype) * stride for side in (height, width))
        centre = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2) + (stride - 1) / 2
        half = (ANCHOR_SIDE * stride - 1) / 2
        levels.append(torch.cat([centre - half, centre + half], 1))
    return torch.cat(levels)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """(..., 4) (dx, dy, dw, dh) relative to anchors (..., 4) -> xyxy."""
    low, high = anchors.split(2, -1)
    size, centre = high - low + 1, (low + high) / 2
    shift, log_ratio = (deltas / deltas.new_tensor(_SCALE)).split(2, -1)
    centre = shift * size + centre
    half = (log_ratio.clamp(max=_MAX_LOG_RATIO).exp() * size - 1) / 2
    return torch.cat([centre - half, centre + half], -1)


def sides(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances (..., 4) of points (..., 2) to the left, top, right and bottom side of boxes (..., 4); negative
    outside."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)


def assign(anchors: Tensor, places: Sequence[int], boxes: Tensor) -> Tensor:
    """ATSS: the true box of every anchor, int64 (N,), -1 for none.

    `places` are the levels' numbers of anchors. The candidates of a box are, on every level, the TOPK anchors whose
    centres are nearest to its own; those become positive that overlap it by at least the mean plus one standard
    deviation of the candidates' IoU and whose centre lies inside it. Of several boxes the best overlap wins.
    """
    if not len(boxes):
        return torch.full((len(anchors),), -1, device=anchors.device)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    distance_GN = (boxes[:, None, :2] / 2 + boxes[:, None, 2:] / 2 - centres).norm(dim=-1)
    levels = zip(distance_GN.split(list(places), 1), accumulate(places, initial=0))
    nearest = [level.topk(min(TOPK, level.shape[1]), largest=False).indices + first for level, first in levels]
    candidates_GK = torch.cat(nearest, 1)
    overlap = iou(anchors[candidates_GK], boxes[:, None], inclusive=True)
    enough = overlap >= (overlap.mean(1) + overlap.std(1))[:, None]
    inside = sides(centres[candidates_GK], boxes[:, None]).amin(-1) > 0.01
    overlap_GN = torch.full_like(distance_GN, -1.0)
    overlap_GN.scatter_(1, candidates_GK, overlap.masked_fill(~(enough & inside), -1.0))
    best, matched = overlap_GN.max(0)
    return matched.masked_fill(best < 0, -1)


def token_focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss (alpha 0.25, gamma 2) of every logit; targets bool, of the same shape."""
    miss = torch.where(targets, -logits, logits)
    weight = torch.where(targets, 0.25, 0.75)
    return weight * miss.sigmoid().square() * F.softplus(miss)


def centerness_of(points: Tensor, boxes: Tensor) -> Tensor:
    """1 in the middle of a box, 0 on its border."""
    left, top, right, bottom = sides(points, boxes).unbind(-1)
    across, down = (torch.minimum(a, b) / torch.maximum(a, b) for a, b in ((left, right), (top, bottom)))
    return (across * down).sqrt()


def loss_sums(
    deltas: Tensor,
    centerness: Tensor,
    logits: Tensor,
    sizes: Sequence[tuple[int, int]],
    mask: Tensor,
    boxes: Sequence[Tensor],
    positive_map: Sequence[Tensor],
    *,
    last_token_unmatched: bool = False,
) -> LossSums:
    """Head outputs (B, N, 4), (B, N), (B, N, L), float32, against the true boxes.

    sizes: (height, width) of the levels; mask: bool (B, L), real tokens; boxes: per image (G, 4) xyxy, G may be 0;
    positive_map: per image (G, L), non-zero where a token names the box. An unmatched anchor names no token;
    `last_token_unmatched` is the published target, which makes it name the last column (felt where a text fills all
    of them).
    """
    anchors = make_anchors(sizes, deltas)
    places = [height * width for height, width in sizes]
    targets = torch.zeros_like(logits, dtype=torch.bool)
    matched, truth = [], []
    for target, true_boxes, names in zip(targets, boxes, positive_map, strict=True):
        row = assign(anchors, places, true_boxes.to(anchors))
        positive = row >= 0
        target[positive] = names.to(logits.device).bool()[row[positive]]
        target[:, -1] |= ~positive & last_token_unmatched
        matched.append(positive)
        truth.append(true_boxes.to(anchors)[row[positive]])
    positive_BN, truth = torch.stack(matched), torch.cat(truth)
    own = anchors.expand_as(deltas)[positive_BN]
    centre_target = centerness_of((own[:, :2] + own[:, 2:]) / 2, truth)
    overlap = giou(decode(deltas[positive_BN], own), truth)
    return LossSums(
        token=(token_focal(logits, targets) * mask[:, None]).sum(),
        box=(centre_target * (1 - overlap)).sum(),
        centerness=F.binary_cross_entropy_with_logits(centerness[positive_BN], centre_target, reduction="sum"),
        centerness_target=centre_target.sum(),
        positives=positive_BN.sum(),
    )
