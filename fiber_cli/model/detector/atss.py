"""ATSS: which anchors are to find which true box.

Shapes: N anchors of all levels (finest first, row-major), G true boxes of one image, K candidates of a box.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fiber_cli.boxes import iou
from fiber_cli.model.detector.anchors import centres_of

#: Candidates per level and true box.
TOPK = 9


def side_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances (..., 4) of points (..., 2) to the left, top, right and bottom side of boxes (..., 4); negative
    outside."""
    low, high = boxes.split(2, -1)
    return torch.cat([points - low, high - points], -1)


def assign(anchors: Tensor, level_lengths: Sequence[int], boxes: Tensor) -> Tensor:
    """The true box of every anchor (N, 4), of boxes (G, 4): int64 (N,), -1 for none.

    `level_lengths` are the levels' numbers of anchors. The candidates of a box are, on every level, the TOPK anchors
    whose centres are nearest to its own; those become positive that overlap it by at least the mean plus one standard
    deviation of the candidates' IoU and whose centre lies inside it. Of several boxes the best overlap wins.
    """
    if not len(boxes):
        return torch.full((len(anchors),), -1, device=anchors.device)
    centres = centres_of(anchors)
    distance_GN = (centres_of(boxes)[:, None] - centres).norm(dim=-1)
    candidates_GK = _nearest_of_every_level(distance_GN, level_lengths)
    overlap_GK = iou(anchors[candidates_GK], boxes[:, None], inclusive=True)
    threshold_G = overlap_GK.mean(1) + overlap_GK.std(1)
    distances_GK4 = side_distances(centres[candidates_GK], boxes[:, None])
    positive_GK = (overlap_GK >= threshold_G[:, None]) & (distances_GK4.amin(-1) > 0.01)
    overlap_GN = torch.full_like(distance_GN, -1.0)
    overlap_GN.scatter_(1, candidates_GK, overlap_GK.masked_fill(~positive_GK, -1.0))
    best_overlap, matched = overlap_GN.max(0)
    return matched.masked_fill(best_overlap < 0, -1)


def _nearest_of_every_level(distance_GN: Tensor, level_lengths: Sequence[int]) -> Tensor:
    """Numbers of the TOPK nearest anchors on each level, int64 (G, K)."""
    candidates = []
    first = 0
    for distance in distance_GN.split(list(level_lengths), 1):
        length = distance.shape[1]
        nearest = distance.topk(min(TOPK, length), largest=False).indices
        candidates.append(first + nearest)
        first += length
    return torch.cat(candidates, 1)
