"""Phrases and referring expressions found in images. Boxes are xyxy; numbers are percentages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from fiber_cli.boxes import areas

#: Name of a recall of phrases → how many of the best boxes count, None for all.
_RECALLS: Mapping[str, int | None] = {"r@1": 1, "r@5": 5, "r@10": 10, "upper_bound": None}
_LEAST_OVERLAP = 0.5


class PhraseDetections(NamedTuple):
    """Detected boxes (n, 4), best first, true boxes (m, 4), m > 0, and the types of one phrase."""

    detected: np.ndarray
    truth: np.ndarray
    types: Sequence[str] = ()


class ExpressionDetections(NamedTuple):
    """Detections (n, 6) of one expression as `detection_rows.ranked` gives them, and its true box (4,)."""

    detected: np.ndarray
    truth: np.ndarray


def overlaps(boxes: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU and generalised IoU of boxes (n, 4) with (m, 4), both float64 (n, m), widths being x2 - x1."""
    rows = torch.from_numpy(boxes.astype(float))[:, None]
    columns = torch.from_numpy(truth.astype(float))[None]
    intersection, union, hull = areas(*rows.split(2, -1), *columns.split(2, -1))
    union = union.clamp(min=1e-12)
    hull = hull.clamp(min=1e-12)
    iou = intersection / union
    giou = iou - (hull - union) / hull
    return iou.numpy(), giou.numpy()


def phrase_recall(phrases: Iterable[PhraseDetections]) -> dict[str, float]:
    """Recall of Flickr30k Entities.

    `grounding/any_box/r@k`, k = 1, 5, 10: one of the first k has an IoU of at least 0.5 with any true box;
    `upper_bound`: one of all. `merged_box`: the same with the box around all true ones. `<name>/<type>`: over the
    phrases of a type.
    """
    hits: dict[str, list[bool]] = {}
    for detected, truth, types in phrases:
        targets = {"any_box": truth, "merged_box": _box_around(truth)}
        endings = ["", *(f"/{kind}" for kind in types)]
        for protocol, target in targets.items():
            iou, _ = overlaps(detected, target)
            is_hit = iou.max(1) >= _LEAST_OVERLAP
            for recall, count in _RECALLS.items():
                hit = bool(is_hit[:count].any())
                for ending in endings:
                    hits.setdefault(f"grounding/{protocol}/{recall}{ending}", []).append(hit)
    return _percentages(hits)


def _box_around(boxes: np.ndarray) -> np.ndarray:
    """(1, 4)."""
    corners = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    return corners[None]


def referring_accuracy(expressions: Iterable[ExpressionDetections], prefix: str = "") -> dict[str, float]:
    """Accuracy over referring expressions; prefix: put behind "refexp/".

    `refexp/acc@iou50`: the first box has an IoU of at least 0.5; `refexp/acc@giou50`: the same with the stricter
    generalised IoU, which the published evaluation tests; `refexp/r@5@giou50`, `refexp/r@10@giou50`: one of the first.
    """
    hits: dict[str, list[bool]] = {}
    for detected, truth in expressions:
        iou, giou = overlaps(detected[:, :4], truth[None])
        iou_hits = iou[:, 0] >= _LEAST_OVERLAP
        giou_hits = giou[:, 0] >= _LEAST_OVERLAP
        counted = {
            "acc@iou50": iou_hits[:1],
            "acc@giou50": giou_hits[:1],
            "r@5@giou50": giou_hits[:5],
            "r@10@giou50": giou_hits[:10],
        }
        for name, first in counted.items():
            hits.setdefault(f"refexp/{prefix}{name}", []).append(bool(first.any()))
    return _percentages(hits)


def _percentages(hits: Mapping[str, Sequence[bool]]) -> dict[str, float]:
    return {name: 100.0 * sum(outcomes) / len(outcomes) for name, outcomes in hits.items()}
