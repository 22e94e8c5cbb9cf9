"""The regions that a head finds to the detections of an image.

Shapes: N regions of all levels, L text length, J labels, K detections. A pair is a region with a label, numbered region
by region: n * J + j.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fiber_cli.boxes import class_nms
from fiber_cli.model.detector.detection_head import DetectionOutput


class ImageDetections(NamedTuple):
    """Of one image, best first: `boxes` (K, 4) xyxy in its pixels, `scores` (K,), `labels` int64 (K,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def postprocess(
    out: DetectionOutput,
    image: int,
    size: tuple[int, int],
    tokens: Sequence[Sequence[int]],
    *,
    score_threshold: float = 0.05,
    pre_nms_topk: int = 1000,
    nms_iou: float = 0.6,
    max_detections: int = 100,
    aggregation: str = "mean",
) -> ImageDetections:
    """Detections of one image of a batch, in the pixels of the network's input.

    size: true (height, width) of the image, boxes are clipped to it. tokens: the token positions of every label; a
    label's score is the "mean" or the "max" of its tokens' probabilities, and a label without tokens is never found.
    Candidates are the (region, label) pairs scored above `score_threshold`, on every level the best `pre_nms_topk`. Of
    heads that judge how well their boxes lie, such as by centerness, they are ranked by score times that quality, and
    the reported score is the root of that product. `max_detections` may be exceeded by ties.
    """
    regions = out.regions(image)
    scores_JN = label_scores(regions.logits, tokens, aggregation)
    ranks_JN = scores_JN if regions.quality is None else scores_JN * regions.quality
    ranks_JN = torch.where(scores_JN > score_threshold, ranks_JN, -1.0)
    ranks, pairs = _best_of_every_level(ranks_JN, regions.level_lengths, pre_nms_topk)
    scores = ranks if regions.quality is None else ranks.sqrt()
    region_numbers, labels = pairs // len(tokens), pairs % len(tokens)
    boxes = _clip(regions.boxes[region_numbers], size)
    best_first = class_nms(boxes, scores, labels, nms_iou)
    if len(best_first) > max_detections:
        lowest = scores[best_first[max_detections - 1]]
        best_first = best_first[scores[best_first] >= lowest]
    return ImageDetections(boxes[best_first], scores[best_first], labels[best_first])


def postprocess_apart(
    out: DetectionOutput, image: int, size: tuple[int, int], tokens: Sequence[Sequence[int]], **settings: Any
) -> ImageDetections:
    """As `postprocess`, but of every label as if it were the only one: with candidates and `max_detections` of its own;
    best first within each label."""
    boxes, scores, labels = [], [], []
    for label, of_label in enumerate(tokens):
        found = postprocess(out, image, size, [of_label], **settings)
        boxes.append(found.boxes)
        scores.append(found.scores)
        labels.append(torch.full_like(found.labels, label))
    return ImageDetections(torch.cat(boxes), torch.cat(scores), torch.cat(labels))


#: The settings of `postprocess` and their defaults.
POSTPROCESSING: Mapping[str, Any] = dict(postprocess.__kwdefaults__ or {})


def label_scores(logits_NL: Tensor, tokens: Sequence[Sequence[int]], aggregation: str) -> Tensor:
    """Scores (J, N) of labels by the "mean" or the "max" probability of their tokens' positions; NaN or -inf for a
    label without tokens."""
    device = logits_NL.device
    columns = torch.tensor(list(chain.from_iterable(tokens)), dtype=torch.long, device=device)
    lengths = torch.tensor(list(map(len, tokens)), dtype=torch.long, device=device)
    probabilities = logits_NL.T[columns].sigmoid()
    # Neither a matrix product, which autocast or TF32 would round, nor padding to the longest label.
    return torch.segment_reduce(probabilities, aggregation, lengths=lengths, axis=0)


def _best_of_every_level(ranks_JN: Tensor, level_lengths: Sequence[int], topk: int) -> tuple[Tensor, Tensor]:
    """The best `topk` pairs on each level, less those of a negative rank: their ranks and their numbers."""
    pairs_per_level = [length * len(ranks_JN) for length in level_lengths]
    best, numbers = [], []
    first = 0
    for level in ranks_JN.T.flatten().split(pairs_per_level):
        values, indices = level.topk(min(topk, len(level)))
        best.append(values)
        numbers.append(indices + first)
        first += len(level)
    ranks = torch.cat(best)
    candidates = ranks >= 0
    return ranks[candidates], torch.cat(numbers)[candidates]


def _clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    last_y, last_x = size[0] - 1, size[1] - 1
    last_pixel = boxes.new_tensor([last_x, last_y, last_x, last_y])
    return torch.minimum(boxes.clamp(min=0), last_pixel)
