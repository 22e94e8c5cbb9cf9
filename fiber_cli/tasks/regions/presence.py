"""Whether a name fires where its object is and is silent where it is not, and the least score that does both best.

Average precision ranks boxes; a user asks for a few names and sees what is above a threshold. Scores depend on how many
names a prompt has, so the threshold is chosen by prompts of a few.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fiber_cli.tasks.regions.metrics import overlaps

#: Thresholds that are always reported beside the best one.
THRESHOLDS = (0.3, 0.5)
_LEAST_OVERLAP = 0.5
#: Names of a prompt as people type them, and how many of them may be in the picture.
FEW_NAMES = 5
_MOST_PRESENT = 2
#: Thresholds are multiples of this.
_STEP = 0.01


class Presence(NamedTuple):
    """Pairs of an image and a name, of those present (P,) and those absent (A,): the best score of a detection of the
    name, of those present of one that overlaps a true box by at least half; 0 where there is none."""

    present: np.ndarray
    absent: np.ndarray

    def share_present(self, threshold: float) -> float:
        """Percentage of the present names that are found."""
        return 100.0 * float((self.present >= threshold).mean())

    def share_absent(self, threshold: float) -> float:
        """Percentage of the absent names that fire all the same."""
        return 100.0 * float((self.absent >= threshold).mean())


def few_labels(present: Sequence[int], names: int, key: str) -> list[int]:
    """Labels to ask of an image by themselves, in random order: two of those present at most, and others. names: how
    many labels there are; key: of the image, on which the choice depends alone."""
    rng = random.Random(f"{key}/few names")
    chosen = rng.sample(sorted(present), min(_MOST_PRESENT, len(present)))
    others = sorted(set(range(names)).difference(present))
    chosen += rng.sample(others, min(FEW_NAMES - len(chosen), len(others)))
    return rng.sample(chosen, len(chosen))


def presence(
    predictions: Mapping[int, np.ndarray],
    true_boxes: Sequence[Mapping[int, np.ndarray]],
    names: int,
    asked: Mapping[int, Sequence[int]] | None = None,
) -> Presence:
    """predictions: of images by their number, rows (n, 6) of x1, y1, x2, y2, score, label; true_boxes: of every image,
    label → (m, 4), without any where the label must not be asked of the image; names: how many labels there are; asked:
    those that each image was asked, None for all of them."""
    present: list[float] = []
    absent: list[float] = []
    for index, rows in predictions.items():
        truth = true_boxes[index]
        is_asked = np.ones(names, bool)
        if asked is not None:
            is_asked = np.isin(np.arange(names), asked[index])
        best = np.zeros(names)
        np.maximum.at(best, rows[:, 5].astype(int), rows[:, 4])
        for label, boxes in truth.items():
            if len(boxes) and is_asked[label]:
                present.append(_best_hit(rows[rows[:, 5] == label], boxes))
        is_absent = is_asked.copy()
        is_absent[list(truth)] = False
        absent.extend(best[is_absent].tolist())
    return Presence(np.array(present), np.array(absent))


def _best_hit(rows: np.ndarray, boxes: np.ndarray) -> float:
    """The best score of the rows (n, 6) that overlap one of the boxes (m, 4) by at least half."""
    if not len(rows):
        return 0.0
    iou, _ = overlaps(rows[:, :4], boxes)
    hits = rows[iou.max(1) >= _LEAST_OVERLAP, 4]
    return float(hits.max()) if len(hits) else 0.0


def best_threshold(pairs: Presence) -> float:
    """The threshold with the best F1 over present and absent names, each kind weighing as much as the other however
    many there are: a user asks for few names, a data set for all."""
    thresholds = np.arange(_STEP, 1, _STEP)
    found = np.array([pairs.share_present(threshold) for threshold in thresholds])
    fired = np.array([pairs.share_absent(threshold) for threshold in thresholds])
    f1 = 2 * found / (found + fired + 100)
    # Of equally good ones the middle: the farthest from where it would change.
    best = np.flatnonzero(f1 == f1.max())
    return round(float(thresholds[best[len(best) // 2]]), 2)


def presence_metrics(pairs: Presence, of_few: Presence | None = None) -> dict[str, float]:
    """`detection/present@T` and `absent@T` at THRESHOLDS; `detection/threshold`, the best one, 0 to 1, and the same at
    it as `@best`, both of prompts of few names where there are such. Nothing where there is no name of the one kind or
    the other."""
    if not _tells(pairs):
        return {}
    typed = pairs if of_few is None or not _tells(of_few) else of_few
    best = best_threshold(typed)
    metrics = {"detection/threshold": best}
    for threshold in THRESHOLDS:
        metrics |= _shares(pairs, f"{threshold:g}", threshold)
    return metrics | _shares(typed, "best", best)


def _tells(pairs: Presence) -> bool:
    return len(pairs.present) > 0 and len(pairs.absent) > 0


def _shares(pairs: Presence, name: str, threshold: float) -> dict[str, float]:
    return {
        f"detection/present@{name}": pairs.share_present(threshold),
        f"detection/absent@{name}": pairs.share_absent(threshold),
    }


def true_boxes_of(
    image_ids: Iterable[int], labels: Mapping[int, int], annotations: Iterable[Mapping[str, Any]]
) -> list[dict[int, np.ndarray]]:
    """The true boxes of each image by label, xyxy by first and last pixel, from annotations in COCO's form; of a label
    that only crowds or ignored boxes have there are none. labels: category id → label."""
    boxes: dict[int, dict[int, list[list[float]]]] = {image: {} for image in image_ids}
    for annotation in annotations:
        of_image = boxes.get(annotation["image_id"])
        if of_image is None:
            continue
        of_label = of_image.setdefault(labels[annotation["category_id"]], [])
        if not annotation.get("iscrowd") and not annotation.get("ignore"):
            x, y, width, height = annotation["bbox"]
            of_label.append([x, y, x + width - 1, y + height - 1])
    arrays = []
    for of_image in boxes.values():
        arrays.append({label: np.array(listed, float).reshape(-1, 4) for label, listed in of_image.items()})
    return arrays
