"""COCO's average precision of detections, by pycocotools, and ODinW's mean of it. Numbers are percentages."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pycocotools.coco import COCO

#: A row of numbers for each category.
ClassTable = list[dict[str, Any]]
#: Names of the numbers of COCOeval's summary, as far as they are reported, in its order.
_SUMMARY = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


_INT64 = np.iinfo(np.int64)


class CocoDetections(NamedTuple):
    """N detections: image and category ids of the truth (N,), see `id_array`, boxes xywh in pixels (N, 4), scores
    (N,)."""

    images: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def take(self, rows: np.ndarray) -> "CocoDetections":
        """The detections of these rows, int64 (M,)."""
        return CocoDetections(self.images[rows], self.categories[rows], self.boxes[rows], self.scores[rows])

    def to_json(self) -> list[dict[str, Any]]:
        """COCO's form of results."""
        columns = (self.images.tolist(), self.categories.tolist(), self.boxes.tolist(), self.scores.tolist())
        results = []
        for image, category, box, score in zip(*columns, strict=True):
            results.append({"image_id": image, "category_id": category, "bbox": box, "score": score})
        return results


def id_array(ids: Sequence[int]) -> np.ndarray:
    """Ids (N,), none of them rounded: int64, or Python's integers where that is too small for one."""
    fit = all(_INT64.min <= each <= _INT64.max for each in ids)
    return np.array(ids, np.int64 if fit else object)


def coco_ap(
    truth: Mapping[str, Any], detections: CocoDetections, image_ids: Sequence[int]
) -> tuple[dict[str, float], ClassTable]:
    """(`detection/ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`; name, ap and ap50 of each category).

    truth: the content of a JSON in COCO's form. Over the images given. What no box of the truth speaks of is left out,
    such as `ap_small` without any.
    """
    from pycocotools.cocoeval import COCOeval

    images = _positions(image_ids)
    categories = _positions([category["id"] for category in truth["categories"]])
    with contextlib.redirect_stdout(io.StringIO()):
        objects = _indexed(images, categories, truth["annotations"])
        results = _indexed(images, categories, detections.to_json())
        evaluation = COCOeval(objects, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = {}
    for name, value in zip(_SUMMARY, evaluation.stats, strict=False):
        if value > -1:
            metrics[f"detection/{name}"] = 100.0 * float(value)
    # (thresholds, recalls, categories, areas, most detections): all areas, as many detections as count
    precision = evaluation.eval["precision"][..., 0, -1]
    return metrics, _class_table(truth, list(categories), precision)


def _positions(ids: Sequence[int]) -> dict[int, int]:
    """Id → its number among all, ascending: COCOeval rounds ids that are greater than int64."""
    return {each: number for number, each in enumerate(sorted(set(ids)))}


def _indexed(
    images: Mapping[int, int], categories: Mapping[int, int], annotations: Sequence[Mapping[str, Any]]
) -> "COCO":
    """The annotations of these images and categories, which are known by their numbers."""
    from pycocotools.coco import COCO

    numbered = []
    # Its matching takes an annotation with the id 0 for no match, and exports of tools lack some keys.
    for number, annotation in enumerate(annotations, 1):
        image, category = images.get(annotation["image_id"]), categories.get(annotation["category_id"])
        if image is None or category is None:
            continue
        _, _, width, height = annotation["bbox"]
        of = {"image_id": image, "category_id": category, "id": number}
        numbered.append({"iscrowd": 0, "area": width * height, **annotation, **of})
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in images.values()],
        "categories": [{"id": number} for number in categories.values()],
        "annotations": numbered,
    }
    coco.createIndex()
    return coco


def _class_table(truth: Mapping[str, Any], categories: Sequence[int], precision: np.ndarray) -> ClassTable:
    """categories: ids. precision: (thresholds, recalls, categories), -1 where a category has no box."""
    name_of = {category["id"]: category["name"] for category in truth["categories"]}
    table = []
    for number, category in enumerate(categories):
        curves = precision[:, :, number]
        if (curves > -1).any():
            table.append({"name": name_of[category], "ap": _mean(curves), "ap50": _mean(curves[0])})
    return table


def _mean(curves: np.ndarray) -> float:
    return 100.0 * float(curves[curves > -1].mean())


def odinw_ap(aps: Mapping[str, float]) -> dict[str, float]:
    """`odinw/ap`, the plain mean of the sets' AP, and `odinw/ap/<set>` of each."""
    metrics = {"odinw/ap": sum(aps.values()) / len(aps)}
    for name, ap in aps.items():
        metrics[f"odinw/ap/{name}"] = ap
    return metrics
