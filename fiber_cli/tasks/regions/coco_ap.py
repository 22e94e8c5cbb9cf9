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


class CocoDetections(NamedTuple):
    """N detections: image and category ids of the truth (N,), boxes xywh in pixels (N, 4), scores (N,)."""

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


def coco_ap(
    truth: Mapping[str, Any], detections: CocoDetections, image_ids: Sequence[int]
) -> tuple[dict[str, float], ClassTable]:
    """(`detection/ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`; name, ap and ap50 of each category).

    truth: the content of a JSON in COCO's form. Over the images given. What no box of the truth speaks of is left out,
    such as `ap_small` without any.
    """
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        objects = _indexed(truth, truth["annotations"])
        results = _indexed(truth, detections.to_json())
        evaluation = COCOeval(objects, results, "bbox")
        evaluation.params.imgIds = sorted(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = {}
    for name, value in zip(_SUMMARY, evaluation.stats, strict=False):
        if value > -1:
            metrics[f"detection/{name}"] = 100.0 * float(value)
    # (thresholds, recalls, categories, areas, most detections): all areas, as many detections as count
    precision = evaluation.eval["precision"][..., 0, -1]
    return metrics, _class_table(truth, evaluation.params.catIds, precision)


def _indexed(truth: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> "COCO":
    from pycocotools.coco import COCO

    numbered = []
    # Its matching takes an annotation with the id 0 for no match, and exports of tools lack some keys.
    for number, annotation in enumerate(annotations, 1):
        _, _, width, height = annotation["bbox"]
        numbered.append({"iscrowd": 0, "area": width * height, **annotation, "id": number})
    coco = COCO()
    coco.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": numbered}
    coco.createIndex()
    return coco


def _class_table(truth: Mapping[str, Any], categories: Sequence[int], precision: np.ndarray) -> ClassTable:
    """precision: (thresholds, recalls, categories), -1 where a category has no box."""
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
