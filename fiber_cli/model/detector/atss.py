"""ATSS: which anchors are to find which true box.

All images of a batch go together, their boxes padded to one number, so that nothing waits for how many there are.
Shapes: B images, N anchors of all levels (finest first, row-major), G true boxes of an image, K candidates of a box.
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


def assign(anchors: Tensor, level_lengths: Sequence[int], boxes: Tensor, is_box: Tensor | None = None) -> Tensor:
    """The true box of every anchor (N, 4), of boxes (G, 4): int64 (N,), -1 for none; of boxes (B, G, 4) int64 (B, N).

    `level_lengths` are the levels' numbers of anchors. is_box: bool (G,) or (B, G), False for padding; None: all are
    boxes. The candidates of a box are, on every level, the TOPK anchors
    whose centres are nearest to its own; those become positive that overlap it by at least the mean plus one standard
    deviation of the candidates' IoU and whose centre lies inside it. Of several boxes the best overlap wins.
    """
    if not boxes.shape[-2]:
        return torch.full((*boxes.shape[:-2], len(anchors)), -1, device=anchors.device)
    centres = centres_of(anchors)
    distance_BGN = (centres_of(boxes)[..., None, :] - centres).norm(dim=-1)
    candidates_BGK = _nearest_of_every_level(distance_BGN, level_lengths)
    overlap_BGK = iou(anchors[candidates_BGK], boxes[..., None, :], inclusive=True)
    threshold_BG = overlap_BGK.mean(-1) + overlap_BGK.std(-1)
    distances_BGK4 = side_distances(centres[candidates_BGK], boxes[..., None, :])
    positive_BGK = (overlap_BGK >= threshold_BG[..., None]) & (distances_BGK4.amin(-1) > 0.01)
    if is_box is not None:
        positive_BGK &= is_box[..., None]
    overlap_BGN = torch.full_like(distance_BGN, -1.0)
    overlap_BGN.scatter_(-1, candidates_BGK, overlap_BGK.masked_fill(~positive_BGK, -1.0))
    best_overlap, matched = overlap_BGN.max(-2)
    return matched.masked_fill(best_overlap < 0, -1)


def _nearest_of_every_level(distance_BGN: Tensor, level_lengths: Sequence[int]) -> Tensor:
    """Numbers of the TOPK nearest anchors on each level, int64 (..., G, K)."""
    candidates = []
    first = 0
    for distance in distance_BGN.split(list(level_lengths), -1):
        length = distance.shape[-1]
        nearest = distance.topk(min(TOPK, length), largest=False).indices
        candidates.append(first + nearest)
        first += length
    return torch.cat(candidates, -1)
