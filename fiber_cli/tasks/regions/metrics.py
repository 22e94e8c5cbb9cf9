"""Phrases and referring expressions found in pictures. Boxes are xyxy; numbers are percentages."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from fiber_cli.boxes import areas


def overlaps(boxes: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU and generalised IoU of boxes (n, 4) with (m, 4), both float64 (n, m), widths being x2 - x1."""
    a, b = (torch.from_numpy(each.astype(float)) for each in (boxes, truth))
    inter, union, hull = (area.numpy() for area in areas(*a[:, None].split(2, -1), *b[None].split(2, -1)))
    union, hull = np.maximum(union, 1e-12), np.maximum(hull, 1e-12)
    return inter / union, inter / union - (hull - union) / hull


def ranked(found: np.ndarray) -> np.ndarray:
    """Rows (n, 6) of x1, y1, x2, y2, score, label, best score first; of equal ones the greater box, as published."""
    return found[np.lexsort(found[:, [3, 2, 1, 0, 4]].T)[::-1]]


def phrase_recall(phrases: Iterable[tuple[np.ndarray, np.ndarray, Sequence[str]]]) -> dict[str, float]:
    """Recall of Flickr30k Entities over phrases (found boxes (n, 4), best first; true boxes (m, 4), m > 0; types).

    `grounding/any_box/r@k`, k = 1, 5, 10: one of the first k has an IoU of at least 0.5 with any true box;
    `upper_bound`: one of all. `merged_box`: the same with the box around all true ones. `<name>/<type>`: over the
    phrases of a type.
    """
    hits: dict[str, list[bool]] = {}
    for boxes, truth, types in phrases:
        merged = np.r_[truth[:, :2].min(0), truth[:, 2:].max(0)][None]
        for protocol, target in (("any_box", truth), ("merged_box", merged)):
            good = (overlaps(boxes, target)[0] >= 0.5).any(1)
            for name, k in (("r@1", 1), ("r@5", 5), ("r@10", 10), ("upper_bound", None)):
                for ending in ("", *(f"/{kind}" for kind in types)):
                    hits.setdefault(f"grounding/{protocol}/{name}{ending}", []).append(bool(good[:k].any()))
    return {name: 100.0 * sum(found) / len(found) for name, found in hits.items()}


def referring_accuracy(expressions: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Over expressions (found rows as of `ranked`, the true box (4,)).

    `refexp/acc@iou50`: the first box has an IoU of at least 0.5; `refexp/acc@giou50`: the same with the stricter
    generalised IoU, which the published evaluation tests; `refexp/r@5@giou50`, `refexp/r@10@giou50`: one of the first.
    """
    hits: dict[str, list[bool]] = {}
    for rows, truth in expressions:
        iou, giou = (each[:, 0] >= 0.5 for each in overlaps(rows[:, :4], truth[None]))
        first = {"acc@iou50": iou[:1], "acc@giou50": giou[:1], "r@5@giou50": giou[:5], "r@10@giou50": giou[:10]}
        for name, good in first.items():
            hits.setdefault(f"refexp/{name}", []).append(bool(good.any()))
    return {name: 100.0 * sum(found) / len(found) for name, found in hits.items()}
