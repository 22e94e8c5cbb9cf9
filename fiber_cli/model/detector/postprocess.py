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
from fiber_cli.model.detector.detection_head import DetectionOutput, Regions


class ImageDetections(NamedTuple):
    """Of one image, best first: `boxes` (K, 4) xyxy in its pixels, `scores` (K,), `labels` int64 (K,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Postprocessing(NamedTuple):
    """What makes detections of regions.

    Candidates are the (region, label) pairs scored above `score_threshold`, on every level the best `pre_nms_topk`; of
    those of one label that overlap by more than `nms_iou` the best is kept, and of all the best `max_detections`, which
    may be exceeded by ties. A label's score is the "mean" or the "max" of its tokens' probabilities (`aggregation`).
    """

    score_threshold: float = 0.05
    pre_nms_topk: int = 1000
    nms_iou: float = 0.6
    max_detections: int = 100
    aggregation: str = "mean"


#: The settings of `postprocess` and their defaults.
POSTPROCESSING: Mapping[str, Any] = Postprocessing()._asdict()


def postprocess(
    out: DetectionOutput, image: int, size: tuple[int, int], tokens: Sequence[Sequence[int]], **settings: Any
) -> ImageDetections:
    """Detections of one image of a batch, in the pixels of the network's input.

    size: true (height, width) of the image, boxes are clipped to it. tokens: the token positions of every label; a
    label without tokens is never found. settings: see `Postprocessing`. Regions of heads that judge how well their
    boxes lie, such as by centerness, are ranked by score times that quality, and the reported score is the root of that
    product.
    """
    return _detections(out.regions(image), size, tokens, Postprocessing(**settings))


def postprocess_apart(
    out: DetectionOutput, image: int, size: tuple[int, int], tokens: Sequence[Sequence[int]], **settings: Any
) -> ImageDetections:
    """As `postprocess`, but of every label as if it were the only one: with candidates and `max_detections` of its own;
    best first within each label."""
    regions = out.regions(image)
    boxes, scores, labels = [], [], []
    for label, of_label in enumerate(tokens):
        detections = _detections(regions, size, [of_label], Postprocessing(**settings))
        boxes.append(detections.boxes)
        scores.append(detections.scores)
        labels.append(torch.full_like(detections.labels, label))
    return ImageDetections(torch.cat(boxes), torch.cat(scores), torch.cat(labels))


def _detections(
    regions: Regions, size: tuple[int, int], tokens: Sequence[Sequence[int]], settings: Postprocessing
) -> ImageDetections:
    scores_JN = label_scores(regions.logits, tokens, settings.aggregation)
    ranks_JN = scores_JN if regions.quality is None else scores_JN * regions.quality
    ranks_JN = torch.where(scores_JN > settings.score_threshold, ranks_JN, -1.0)
    ranks, pairs = _best_of_every_level(ranks_JN, regions.level_lengths, settings.pre_nms_topk)
    scores = ranks if regions.quality is None else ranks.sqrt()
    region_numbers, labels = pairs // len(tokens), pairs % len(tokens)
    boxes = _clip(regions.boxes[region_numbers], size)
    best_first = class_nms(boxes, scores, labels, settings.nms_iou)
    if len(best_first) > settings.max_detections:
        lowest = scores[best_first[settings.max_detections - 1]]
        best_first = best_first[scores[best_first] >= lowest]
    return ImageDetections(boxes[best_first], scores[best_first], labels[best_first])


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
