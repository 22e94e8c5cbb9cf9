"""Average precision of detections: COCO's, by pycocotools, and LVIS's two kinds.

`truth` is the content of a JSON in COCO's form. Numbers are percentages.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

#: Predictions of a class that "fixed AP" counts, over all images (Dave et al., 2021, "Evaluating large-vocabulary
#: object detectors"), and of an image that the official LVIS AP counts.
FIXED_PER_CLASS, LVIS_PER_IMAGE = 10_000, 300
_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
#: Pixels of all, small, medium and large objects, both ends included.
_AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])


#: A row of numbers for each category.
Table = list[dict[str, Any]]


class Detections(NamedTuple):
    """N detections: image and category ids of the truth (N,), boxes xywh in pixels (N, 4), scores (N,)."""

    images: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __getitem__(self, rows) -> Self:
        return Detections(*(column[rows] for column in tuple(self)))

    def to_json(self) -> list[dict[str, Any]]:
        """COCO's form of results."""
        names = ("image_id", "category_id", "bbox", "score")
        return [dict(zip(names, row)) for row in zip(*(column.tolist() for column in tuple(self)))]


def coco_ap(truth: dict[str, Any], found: Detections, image_ids: Sequence[int]) -> tuple[dict[str, float], Table]:
    """(`detection/ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`; name, ap and ap50 of each category).

    Over the images given. What no box of the truth speaks of is left out, such as `ap_small` without any.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def indexed(rows: list[dict[str, Any]]) -> COCO:
        coco = COCO()
        # Its matching takes an annotation with the id 0 for no match, and exports of tools lack some keys.
        coco.dataset = {key: truth[key] for key in ("images", "categories")} | {
            "annotations": [
                {"iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3], **row, "id": number}
                for number, row in enumerate(rows, 1)
            ]
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(indexed(truth["annotations"]), indexed(found.to_json()), "bbox")
        evaluation.params.imgIds = sorted(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    metrics = {f"detection/{name}": 100.0 * float(v) for name, v in zip(names, evaluation.stats) if v > -1}
    of_category = {category["id"]: category["name"] for category in truth["categories"]}
    table = []
    for number, category in enumerate(evaluation.params.catIds):
        precision = evaluation.eval["precision"][:, :, number, 0, -1]
        if (precision > -1).any():
            ap, ap50 = (100.0 * float(p[p > -1].mean()) for p in (precision, precision[0]))
            table.append({"name": of_category[category], "ap": ap, "ap50": ap50})
    return metrics, table


def odinw_ap(aps: Mapping[str, float]) -> dict[str, float]:
    """`odinw/ap`, the plain mean of the sets' AP, and `odinw/ap/<set>` of each."""
    return {"odinw/ap": sum(aps.values()) / len(aps)} | {f"odinw/ap/{name}": ap for name, ap in aps.items()}


def best_per_group(groups: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Rows, ascending, of the `count` best scores of each group; of equal ones the first."""
    order = np.lexsort((-scores, groups))
    ordered = groups[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.sort(order[rank < count])


def lvis_ap(truth: dict[str, Any], found: Detections) -> tuple[dict[str, float], Table]:
    """(`ap`, `ap50`, `ap75`, by area `aps`, `apm`, `apl`, by frequency of the class `apr`, `apc`, `apf`, and `ar`;
    name, frequency, ap and ap50 of each category that has objects).

    LVIS is federated: a class is judged only in images which have it or are listed as without it, and where an image's
    list is not exhaustive, detections that match nothing are ignored. How many detections of an image or of a class
    count is up to the caller, see `best_per_group`.
    """
    image_ids, classes = (np.sort([entry["id"] for entry in truth[key]]) for key in ("images", "categories"))
    objects: dict[tuple[int, int], list[dict]] = {}
    for annotation in truth["annotations"]:
        objects.setdefault((annotation["category_id"], annotation["image_id"]), []).append(annotation)
    absent, partial = (
        {(category, image["id"]) for image in truth["images"] for category in image[key]}
        for key in ("neg_category_ids", "not_exhaustive_category_ids")
    )
    detected: dict[tuple[int, int], np.ndarray] = {}
    known = np.flatnonzero(np.isin(found.images, image_ids))
    order = known[np.lexsort((-found.scores[known], found.images[known], found.categories[known]))]
    keys = np.stack([found.categories[order], found.images[order]], 1)
    starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(1)]) if len(order) else []
    for start, rows in zip(starts, np.split(order, starts[1:])):
        key = tuple(keys[start].tolist())
        if key in objects or key in absent:
            detected[key] = rows
    judged: dict[int, list[int]] = {}
    for category, image in sorted(objects.keys() | detected.keys()):
        judged.setdefault(category, []).append(image)

    precision = np.full((len(classes), 4, len(_THRESHOLDS), len(_RECALLS)), -1.0)
    recall = np.full(precision.shape[:3], -1.0)
    nothing = np.empty(0, np.int64)
    for number, category in enumerate(classes.tolist()):
        pairs = [(category, image) for image in judged.get(category, ())]
        if not pairs:
            continue
        rows = [detected.get(pair, nothing) for pair in pairs]
        matches = [_match(found.boxes[r], objects.get(pair, []), pair in partial) for pair, r in zip(pairs, rows)]
        best = np.argsort(-found.scores[np.concatenate(rows)], kind="stable")
        hit, ignored = (np.concatenate(masks, -1)[..., best] for masks in list(zip(*matches))[:2])
        for area, count in enumerate(sum(match[2] for match in matches).tolist()):
            for threshold in range(len(_THRESHOLDS) if count else 0):
                counted = ~ignored[area, threshold]
                right = np.cumsum(hit[area, threshold] & counted)
                recalls = right / count
                shares = right / np.maximum(np.cumsum(counted), 1)
                # Precision at a recall is the best one at that recall or beyond; 0 where it is never reached.
                shares = np.append(np.maximum.accumulate(shares[::-1])[::-1], 0)
                precision[number, area, threshold] = shares[np.searchsorted(recalls, _RECALLS)]
                recall[number, area, threshold] = recalls[-1] if len(recalls) else 0
    of_class = {category["id"]: category for category in truth["categories"]}
    groups = np.array([of_class[category]["frequency"] for category in classes.tolist()])
    values = {"ap": precision[:, 0], "ap50": precision[:, 0, 0], "ap75": precision[:, 0, 5], "ar": recall[:, 0]}
    values |= {f"ap{size}": precision[:, area] for area, size in enumerate("sml", 1)}
    values |= {f"ap{group}": precision[groups == group, 0] for group in "rcf"}
    table = []
    for category, curves in zip(classes.tolist(), precision[:, 0]):
        if (curves > -1).all():
            ap, ap50 = (100.0 * float(curve.mean()) for curve in (curves, curves[0]))
            about = {key: of_class[category][key] for key in ("name", "frequency")}
            table.append(about | {"ap": ap, "ap50": ap50})
    return {name: 100.0 * float(v[v > -1].mean()) for name, v in values.items() if (v > -1).any()}, table


def _match(boxes: np.ndarray, objects: list[dict], partial: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one class in one image, boxes (D, 4) best first: which are matched and which do not count, both bool
    (areas, thresholds, D), and how many objects count, (areas,)."""
    truth = np.array([annotation["bbox"] for annotation in objects], float).reshape(-1, 4)
    sizes = np.array([annotation["area"] for annotation in objects], float)
    ignore = np.array([annotation.get("ignore", 0) for annotation in objects], bool) | _outside(sizes)
    boxes = boxes.astype(float)[:, None]
    sides = np.minimum(boxes[..., :2] + boxes[..., 2:], truth[:, :2] + truth[:, 2:])
    inter = (sides - np.maximum(boxes[..., :2], truth[:, :2])).clip(0).prod(-1)
    own = boxes[..., 2:].prod(-1)
    iou = inter / np.maximum(own + truth[:, 2:].prod(-1) - inter, 1e-12)

    shape = (len(_AREAS), len(_THRESHOLDS))
    free = np.ones((*shape, len(objects)), bool)
    hit = np.zeros((*shape, len(boxes)), bool)
    ignored = np.repeat((_outside(own[:, 0]) | partial)[:, None], shape[1], 1)
    for d in range(len(boxes) if objects else 0):
        able = free & (iou[d] >= np.minimum(_THRESHOLDS, 1 - 1e-10)[:, None])
        counted = able & ~ignore[:, None]
        # An object that counts goes before one that does not; of equally good ones the last.
        able = np.where(counted.any(-1, keepdims=True), counted, able)
        chosen = len(objects) - 1 - np.where(able, iou[d], -1)[..., ::-1].argmax(-1)
        a, t = np.nonzero(able.any(-1))
        which = chosen[a, t]
        free[a, t, which] = False
        hit[a, t, d] = True
        ignored[a, t, d] = ignore[a, which]
    return hit, ignored, (~ignore).sum(1)


def _outside(sizes: np.ndarray) -> np.ndarray:
    """Which sizes in pixels (n,) lie outside each range: bool (areas, n)."""
    return (sizes < _AREAS[:, :1]) | (sizes > _AREAS[:, 1:])
