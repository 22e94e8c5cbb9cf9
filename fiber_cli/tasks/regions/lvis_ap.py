"""LVIS's average precision of detections. Numbers are percentages.

LVIS is federated: a class is judged only in images which have it or are listed as without it, and where an image's
list is not exhaustive, detections that match nothing are ignored.
Shapes: A ranges of areas, T thresholds of IoU, R recalls, D detections of one class in one image or in all.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fiber_cli.tasks.regions.coco_ap import ClassTable, CocoDetections

#: Predictions of a class that "fixed AP" counts, over all images (Dave et al., 2021, "Evaluating large-vocabulary
#: object detectors").
FIXED_PER_CLASS = 10_000
#: Predictions of an image that the official LVIS AP counts.
LVIS_PER_IMAGE = 300
_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
#: Pixels of all, small, medium and large objects, both ends included.
_AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
_NO_ROWS = np.empty(0, np.int64)

Annotation = Mapping[str, Any]
#: (category id, image id)
ClassInImage = tuple[int, int]


class _Matches(NamedTuple):
    """Of one class in one image: which detections are matched and which do not count, both bool (A, T, D), and how many
    objects count, (A,)."""

    hit: np.ndarray
    ignored: np.ndarray
    object_counts: np.ndarray


class _Curves(NamedTuple):
    """Of one class: precision (A, T, R) and the greatest recall (A, T), -1 where no object counts."""

    precision: np.ndarray
    recall: np.ndarray


def best_per_group(groups: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Rows, ascending, of the `count` best scores of each group; of equal ones the first."""
    order = np.lexsort((-scores, groups))
    ordered = groups[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.sort(order[rank < count])


def lvis_ap(truth: Mapping[str, Any], detections: CocoDetections) -> tuple[dict[str, float], ClassTable]:
    """(`ap`, `ap50`, `ap75`, by area `aps`, `apm`, `apl`, by frequency of the class `apr`, `apc`, `apf`, and `ar`;
    name, frequency, ap and ap50 of each category that has objects).

    truth: the content of LVIS's JSON. How many detections of an image or of a class count is up to the caller, see
    `best_per_group`.
    """
    categories = sorted(truth["categories"], key=_identifier)
    objects = _objects(truth["annotations"])
    rows = _judged_rows(truth, objects, detections)
    not_exhaustive = _listed(truth["images"], "not_exhaustive_category_ids")
    judged: dict[int, list[ClassInImage]] = {}
    for pair in sorted(objects.keys() | rows.keys()):
        judged.setdefault(pair[0], []).append(pair)
    curves = []
    for category in categories:
        matches = []
        scores = []
        for pair in judged.get(category["id"], []):
            pair_rows = rows.get(pair, _NO_ROWS)
            matches.append(_match(detections.boxes[pair_rows], objects.get(pair, []), pair in not_exhaustive))
            scores.append(detections.scores[pair_rows])
        curves.append(_curves(matches, scores))
    return _averages(categories, curves), _class_table(categories, curves)


def _identifier(entry: Mapping[str, Any]) -> int:
    identifier: int = entry["id"]
    return identifier


def _objects(annotations: Sequence[Annotation]) -> dict[ClassInImage, list[Annotation]]:
    objects: dict[ClassInImage, list[Annotation]] = {}
    for annotation in annotations:
        objects.setdefault((annotation["category_id"], annotation["image_id"]), []).append(annotation)
    return objects


def _listed(images: Sequence[Mapping[str, Any]], key: str) -> set[ClassInImage]:
    """The pairs of one of LVIS's lists of categories in the entries of images."""
    listed = set()
    for image in images:
        for category in image[key]:
            listed.add((category, image["id"]))
    return listed


def _judged_rows(
    truth: Mapping[str, Any], objects: Mapping[ClassInImage, Sequence[Annotation]], detections: CocoDetections
) -> dict[ClassInImage, np.ndarray]:
    """Rows of the detections, best first, of every class in every image where it is judged and detected."""
    absent = _listed(truth["images"], "neg_category_ids")
    image_ids = {image["id"] for image in truth["images"]}
    in_truth = np.flatnonzero([image in image_ids for image in detections.images.tolist()])
    sort_keys = (-detections.scores[in_truth], detections.images[in_truth], detections.categories[in_truth])
    order = in_truth[np.lexsort(sort_keys)]
    if not len(order):
        return {}
    pairs = np.stack([detections.categories[order], detections.images[order]], 1)
    differs = (pairs[1:] != pairs[:-1]).any(1)
    starts = np.flatnonzero(np.concatenate([[True], differs]))
    judged = {}
    for start, rows in zip(starts, np.split(order, starts[1:]), strict=True):
        category, image = pairs[start].tolist()
        if (category, image) in objects or (category, image) in absent:
            judged[category, image] = rows
    return judged


def _match(boxes: np.ndarray, objects: Sequence[Annotation], not_exhaustive: bool) -> _Matches:
    """boxes: (D, 4), best first."""
    truth = np.array([annotation["bbox"] for annotation in objects], float).reshape(-1, 4)
    sizes = np.array([annotation["area"] for annotation in objects], float)
    marked = np.array([annotation.get("ignore", 0) for annotation in objects], bool)
    ignore = marked | _outside(sizes)
    boxes = boxes.astype(float)
    iou = _iou(boxes, truth)

    shape = (len(_AREAS), len(_THRESHOLDS))
    free = np.ones((*shape, len(objects)), bool)
    hit = np.zeros((*shape, len(boxes)), bool)
    unmatched_ignored = _outside(boxes[:, 2:].prod(-1)) | not_exhaustive
    ignored = np.repeat(unmatched_ignored[:, None], len(_THRESHOLDS), 1)
    least = np.minimum(_THRESHOLDS, 1 - 1e-10)[:, None]
    for d in range(len(boxes) if objects else 0):
        able = free & (iou[d] >= least)
        counted = able & ~ignore[:, None]
        # An object that counts goes before one that does not; of equally good ones the last.
        able = np.where(counted.any(-1, keepdims=True), counted, able)
        overlap = np.where(able, iou[d], -1)
        best = len(objects) - 1 - overlap[..., ::-1].argmax(-1)
        area, threshold = np.nonzero(able.any(-1))
        matched = best[area, threshold]
        free[area, threshold, matched] = False
        hit[area, threshold, d] = True
        ignored[area, threshold, d] = ignore[area, matched]
    return _Matches(hit, ignored, (~ignore).sum(1))


def _iou(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(D, objects) of boxes xywh."""
    corner, sides = boxes[:, None, :2], boxes[:, None, 2:]
    true_corner, true_sides = truth[:, :2], truth[:, 2:]
    low = np.maximum(corner, true_corner)
    high = np.minimum(corner + sides, true_corner + true_sides)
    intersection = (high - low).clip(0).prod(-1)
    union = sides.prod(-1) + true_sides.prod(-1) - intersection
    return intersection / np.maximum(union, 1e-12)


def _outside(sizes: np.ndarray) -> np.ndarray:
    """Which sizes in pixels (n,) lie outside each range: bool (A, n)."""
    return (sizes < _AREAS[:, :1]) | (sizes > _AREAS[:, 1:])


def _curves(matches: Sequence[_Matches], scores: Sequence[np.ndarray]) -> _Curves:
    """matches, scores: of one class in each of its images."""
    precision = np.full((len(_AREAS), len(_THRESHOLDS), len(_RECALLS)), -1.0)
    recall = np.full(precision.shape[:2], -1.0)
    if not matches:
        return _Curves(precision, recall)
    hits, ignored_masks, object_counts = zip(*matches, strict=True)
    best_first = np.argsort(-np.concatenate(scores), kind="stable")
    hit = np.concatenate(hits, -1)[..., best_first]
    ignored = np.concatenate(ignored_masks, -1)[..., best_first]
    for area, object_count in enumerate(np.sum(object_counts, 0).tolist()):
        if not object_count:
            continue
        for threshold in range(len(_THRESHOLDS)):
            counted = ~ignored[area, threshold]
            right = np.cumsum(hit[area, threshold] & counted)
            recalls = right / object_count
            precisions = right / np.maximum(np.cumsum(counted), 1)
            # Precision at a recall is the best one at that recall or beyond; 0 where it is never reached.
            best_beyond = np.maximum.accumulate(precisions[::-1])[::-1]
            best_beyond = np.append(best_beyond, 0)
            precision[area, threshold] = best_beyond[np.searchsorted(recalls, _RECALLS)]
            recall[area, threshold] = recalls[-1] if len(recalls) else 0
    return _Curves(precision, recall)


def _averages(categories: Sequence[Mapping[str, Any]], curves: Sequence[_Curves]) -> dict[str, float]:
    """The means over the classes that have objects of each kind."""
    precisions, recalls = zip(*curves, strict=True)
    precision = np.stack(precisions)
    recall = np.stack(recalls)
    frequencies = np.array([category["frequency"] for category in categories])
    of_all_areas = precision[:, 0]
    values = {"ap": of_all_areas, "ap50": of_all_areas[:, 0], "ap75": of_all_areas[:, 5], "ar": recall[:, 0]}
    for area, size in enumerate("sml", 1):
        values[f"ap{size}"] = precision[:, area]
    for frequency in "rcf":
        values[f"ap{frequency}"] = of_all_areas[frequencies == frequency]
    averages = {}
    for name, numbers in values.items():
        numbers = numbers[numbers > -1]
        if len(numbers):
            averages[name] = 100.0 * float(numbers.mean())
    return averages


def _class_table(categories: Sequence[Mapping[str, Any]], curves: Sequence[_Curves]) -> ClassTable:
    table = []
    for category, (precision, _) in zip(categories, curves, strict=True):
        of_all_areas = precision[0]
        if (of_all_areas > -1).all():
            row = {"name": category["name"], "frequency": category["frequency"]}
            row["ap"] = 100.0 * float(of_all_areas.mean())
            row["ap50"] = 100.0 * float(of_all_areas[0].mean())
            table.append(row)
    return table
