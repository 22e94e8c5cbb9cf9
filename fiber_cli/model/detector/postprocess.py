"""The regions that a head finds to the detections of images.

Shapes: B images, Q queries (see `Query`), N regions of all levels, L text length, J labels, K detections. A pair is a
region with a label, numbered region by region: n * J + j.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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


class Query(NamedTuple):
    """What is looked for on an image of a batch, by its number: `tokens`, the token positions of every label."""

    image: int
    tokens: Sequence[Sequence[int]]


def postprocess(
    out: DetectionOutput, image: int, size: tuple[int, int], tokens: Sequence[Sequence[int]], **settings: Any
) -> ImageDetections:
    """Detections of one image of a batch, in the pixels of the network's input.

    size: true (height, width) of the image, boxes are clipped to it. tokens: the token positions of every label; a
    label without tokens is never found. settings: see `Postprocessing`. Regions of heads that judge how well their
    boxes lie, such as by centerness, are ranked by score times that quality, and the reported score is the root of that
    product.
    """
    regions = batched([out.regions(image)])
    (detections,) = _detections(regions, [size], [Query(0, tokens)], Postprocessing(**settings))
    return detections


def postprocess_apart(
    out: DetectionOutput, image: int, size: tuple[int, int], tokens: Sequence[Sequence[int]], **settings: Any
) -> ImageDetections:
    """As `postprocess`, but of every label as if it were the only one: with candidates and `max_detections` of its own;
    best first within each label."""
    regions = batched([out.regions(image)])
    (detections,) = _detections_apart(regions, [size], [tokens], Postprocessing(**settings))
    return detections


def postprocess_batch(
    out: DetectionOutput,
    sizes: Sequence[tuple[int, int]],
    tokens: Sequence[Sequence[Sequence[int]]],
    *,
    apart: bool = False,
    **settings: Any,
) -> list[ImageDetections]:
    """`postprocess`, or `postprocess_apart`, of all images of a batch, whose sizes and labels may differ: the same
    numbers by few operations, whose results the host waits for a few times in all."""
    regions = batched([out.regions(image) for image in range(len(sizes))])
    chosen = Postprocessing(**settings)
    if apart:
        return _detections_apart(regions, sizes, tokens, chosen)
    queries = [Query(image, of_image) for image, of_image in enumerate(tokens)]
    return _detections(regions, sizes, queries, chosen)


def batched(of_images: Sequence[Regions]) -> Regions:
    """The regions of several images as tensors with B in front; of images with fewer than the most, padding that no
    label finds."""
    if len(of_images) == 1:
        (only,) = of_images
        quality = None if only.quality is None else only.quality[None]
        return Regions(only.boxes[None], only.logits[None], quality, only.level_lengths)
    lengths = list(map(list, (each.level_lengths for each in of_images)))
    level_lengths = [max(of_level) for of_level in zip(*lengths, strict=True)]
    assert all(each == level_lengths for each in lengths) or len(level_lengths) == 1, "levels of different sizes"
    boxes = pad_sequence([each.boxes for each in of_images], batch_first=True)
    logits = pad_sequence([each.logits for each in of_images], batch_first=True, padding_value=-torch.inf)
    qualities = [each.quality for each in of_images if each.quality is not None]
    return Regions(boxes, logits, pad_sequence(qualities, batch_first=True) if qualities else None, level_lengths)


def _detections_apart(
    regions: Regions,
    sizes: Sequence[tuple[int, int]],
    tokens: Sequence[Sequence[Sequence[int]]],
    settings: Postprocessing,
) -> list[ImageDetections]:
    queries: list[Query] = []
    for image, of_image in enumerate(tokens):
        queries.extend(Query(image, [of_label]) for of_label in of_image)
    alone = iter(_detections(regions, sizes, queries, settings))
    detections = []
    for of_image in tokens:
        boxes, scores, labels = [], [], []
        for label in range(len(of_image)):
            of_label = next(alone)
            boxes.append(of_label.boxes)
            scores.append(of_label.scores)
            labels.append(torch.full_like(of_label.labels, label))
        detections.append(ImageDetections(torch.cat(boxes), torch.cat(scores), torch.cat(labels)))
    return detections


class _Candidates(NamedTuple):
    """Pairs that may be detections, those of each query one after another: the query's number, boxes (K, 4), scores,
    and the label's number in its query."""

    query: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor


def _detections(
    regions: Regions, sizes: Sequence[tuple[int, int]], queries: Sequence[Query], settings: Postprocessing
) -> list[ImageDetections]:
    candidates = _candidates(regions, sizes, queries, settings)
    kept = _suppressed(candidates, len(queries), settings.nms_iou)
    kept, counts = _best(candidates, kept, len(queries), settings.max_detections)
    parts = zip(
        candidates.boxes[kept].split(counts),
        candidates.scores[kept].split(counts),
        candidates.labels[kept].split(counts),
        strict=True,
    )
    return [ImageDetections(*of_query) for of_query in parts]


def _candidates(
    regions: Regions, sizes: Sequence[tuple[int, int]], queries: Sequence[Query], settings: Postprocessing
) -> _Candidates:
    device = regions.logits.device
    most = max(len(query.tokens) for query in queries)
    image_of_query = _on(device, [query.image for query in queries])
    ranks_QNJ = _ranks(regions, queries, settings)
    ranks, pairs = _best_of_every_level(ranks_QNJ, regions.level_lengths, settings.pre_nms_topk)
    query, column = (ranks >= 0).nonzero().unbind(1)
    rank, pair = ranks[query, column], pairs[query, column]
    image = image_of_query[query]
    boxes = _clip(regions.boxes[image, pair // most], _on(device, sizes)[image])
    return _Candidates(query, boxes, rank if regions.quality is None else rank.sqrt(), pair % most)


def _ranks(regions: Regions, queries: Sequence[Query], settings: Postprocessing) -> Tensor:
    """What pairs are ranked by, (Q, N, J), J the most labels of a query; -1 below the threshold."""
    device = regions.logits.device
    columns: list[int] = []
    image_of_column: list[int] = []
    image_of_label, lengths, places = [], [], []
    for number, query in enumerate(queries):
        for label, of_label in enumerate(query.tokens):
            columns.extend(of_label)
            image_of_column.extend([query.image] * len(of_label))
            image_of_label.append(query.image)
            lengths.append(len(of_label))
            places.append((number, label))
    logits_KN = regions.logits[_on(device, image_of_column), :, _on(device, columns)]
    scores_KN = _aggregated(logits_KN, _on(device, lengths), settings.aggregation)
    ranks_KN = scores_KN
    if regions.quality is not None:
        ranks_KN = scores_KN * regions.quality[_on(device, image_of_label)]
    ranks_KN = torch.where(scores_KN > settings.score_threshold, ranks_KN, -1.0)
    most = max(len(query.tokens) for query in queries)
    ranks_QJN = ranks_KN.new_full((len(queries), most, ranks_KN.shape[1]), -1.0)
    rows, places_in_rows = _on(device, places).unbind(1)
    ranks_QJN[rows, places_in_rows] = ranks_KN
    return ranks_QJN.transpose(1, 2)


def _on(device: torch.device, values: Sequence[Any]) -> Tensor:
    """Whole numbers as int64, without waiting for the device."""
    return torch.tensor(values, dtype=torch.long).to(device, non_blocking=True)


def label_scores(logits_NL: Tensor, tokens: Sequence[Sequence[int]], aggregation: str) -> Tensor:
    """Scores (J, N) of labels by the "mean" or the "max" probability of their tokens' positions; NaN or -inf for a
    label without tokens."""
    device = logits_NL.device
    columns = _on(device, list(chain.from_iterable(tokens)))
    return _aggregated(logits_NL.T[columns], _on(device, list(map(len, tokens))), aggregation)


def _aggregated(logits_KN: Tensor, lengths_J: Tensor, aggregation: str) -> Tensor:
    """Of the logits of all labels' tokens, one label after another, the labels' scores (J, N)."""
    # Neither a matrix product, which autocast or TF32 would round, nor padding to the longest label.
    return torch.segment_reduce(logits_KN.sigmoid(), aggregation, lengths=lengths_J, axis=0)


def _best_of_every_level(ranks_QNJ: Tensor, level_lengths: Sequence[int], topk: int) -> tuple[Tensor, Tensor]:
    """The best `topk` pairs on each level: their ranks and their numbers, (Q, M) each."""
    queries, _, labels = ranks_QNJ.shape
    best, numbers = [], []
    first = 0
    for level in ranks_QNJ.split(list(level_lengths), 1):
        pairs = level.reshape(queries, -1)
        values, indices = pairs.topk(min(topk, pairs.shape[1]))
        best.append(values)
        numbers.append(indices + first * labels)
        first += level.shape[1]
    return torch.cat(best, 1), torch.cat(numbers, 1)


def _suppressed(candidates: _Candidates, queries: int, nms_iou: float) -> Tensor:
    """The candidates that no better one of their label hides, query after query, best first in each."""
    if candidates.query.device.type != "cpu":
        return _suppressed_at_once(candidates, nms_iou)
    kept_of_queries = []
    first = 0
    for count in candidates.query.bincount(minlength=queries).tolist():
        rows = slice(first, first + count)
        of_query = class_nms(candidates.boxes[rows], candidates.scores[rows], candidates.labels[rows], nms_iou)
        kept_of_queries.append(first + of_query)
        first += count
    return torch.cat(kept_of_queries)


def _suppressed_at_once(candidates: _Candidates, nms_iou: float) -> Tensor:
    """The same for GPUs, which compare all with all sooner than they say how many each query has."""
    if not len(candidates.labels):
        return candidates.labels
    label = candidates.query * (candidates.labels.amax() + 1) + candidates.labels
    kept = class_nms(candidates.boxes, candidates.scores, label, nms_iou)
    return kept[candidates.query[kept].argsort(stable=True)]


def _best(candidates: _Candidates, kept: Tensor, queries: int, most: int) -> tuple[Tensor, list[int]]:
    """Of what is kept the best `most` of each query, more where the last are equally good, and how many these are."""
    query, scores = candidates.query[kept], candidates.scores[kept]
    counts = query.bincount(minlength=queries)
    if len(kept):
        last = (counts.cumsum(0) - counts + most - 1).clamp(max=len(kept) - 1)
        lowest = torch.where(counts > most, scores[last], -torch.inf)
        is_best = scores >= lowest[query]
        kept, query = kept[is_best], query[is_best]
        counts = query.bincount(minlength=queries)
    return kept, counts.tolist()


def _clip(boxes_K4: Tensor, sizes_K2: Tensor) -> Tensor:
    """Boxes inside of images of these (height, width)."""
    last_K4 = sizes_K2.flip(1).repeat(1, 2) - 1
    return torch.minimum(boxes_K4.clamp(min=0), last_K4.to(boxes_K4))
