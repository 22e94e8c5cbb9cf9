"""COCO's average precision of detections, and ODinW's mean of it. Numbers are percentages."""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from fiber_cli.errors import UserError

#: Libraries that compute the same numbers; pycocotools is the reference, and takes many times longer.
ApLibrary = Literal["faster-coco-eval", "pycocotools"]
USUAL_LIBRARY: ApLibrary = "faster-coco-eval"
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


class _Evaluation(NamedTuple):
    """summary: the numbers of COCOeval's summary, -1 for those without an object. precision: (thresholds, recalls,
    categories, areas, most detections), -1 where a category has no object."""

    summary: Sequence[float]
    precision: np.ndarray


def ap_library(name: str | None) -> ApLibrary:
    """The library of this name, the usual one for None. Raises UserError."""
    if name is None:
        return USUAL_LIBRARY
    for library in _LIBRARIES:
        if library == name:
            return library
    raise UserError(f"--ap-library {name!r}: must be one of {', '.join(_LIBRARIES)}")


def coco_ap(
    truth: Mapping[str, Any],
    detections: CocoDetections,
    image_ids: Sequence[int],
    library: ApLibrary = USUAL_LIBRARY,
) -> tuple[dict[str, float], ClassTable]:
    """(`detection/ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`; name, ap and ap50 of each category).

    truth: the content of a JSON in COCO's form. Over the images given. What no box of the truth speaks of is left out,
    such as `ap_small` without any.
    """
    images = _positions(image_ids)
    categories = _positions([category["id"] for category in truth["categories"]])
    objects = _numbered(images, categories, truth["annotations"])
    results = _numbered(images, categories, detections.to_json())
    evaluation = _LIBRARIES[library](objects, results)
    metrics = {}
    for name, value in zip(_SUMMARY, evaluation.summary, strict=False):
        if value > -1:
            metrics[f"detection/{name}"] = 100.0 * float(value)
    # All areas, as many detections as count.
    precision = evaluation.precision[..., 0, -1]
    return metrics, _class_table(truth, list(categories), precision)


def _positions(ids: Sequence[int]) -> dict[int, int]:
    """Id → its number among all, ascending: COCOeval rounds ids that are greater than int64."""
    return {each: number for number, each in enumerate(sorted(set(ids)))}


def _numbered(
    images: Mapping[int, int], categories: Mapping[int, int], annotations: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The annotations of these images and categories, which are known by their numbers, in COCO's form."""
    numbered = []
    # Its matching takes an annotation with the id 0 for no match, and exports of tools lack some keys.
    for number, annotation in enumerate(annotations, 1):
        image, category = images.get(annotation["image_id"]), categories.get(annotation["category_id"])
        if image is None or category is None:
            continue
        _, _, width, height = annotation["bbox"]
        of = {"image_id": image, "category_id": category, "id": number}
        numbered.append({"iscrowd": 0, "area": width * height, **annotation, **of})
    return {
        "images": [{"id": number} for number in images.values()],
        "categories": [{"id": number} for number in categories.values()],
        "annotations": numbered,
    }


def _by_faster_coco_eval(objects: dict[str, Any], results: dict[str, Any]) -> _Evaluation:
    from faster_coco_eval import COCO, COCOeval_faster

    evaluation = COCOeval_faster(COCO(objects), COCO(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return _Evaluation(evaluation.stats, evaluation.eval["precision"])


def _by_pycocotools(objects: dict[str, Any], results: dict[str, Any]) -> _Evaluation:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    indexed = []
    with contextlib.redirect_stdout(io.StringIO()):
        for content in (objects, results):
            coco = COCO()
            coco.dataset = content
            coco.createIndex()
            indexed.append(coco)
        evaluation = COCOeval(*indexed, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return _Evaluation(evaluation.stats, evaluation.eval["precision"])


_LIBRARIES: Mapping[ApLibrary, Callable[[dict[str, Any], dict[str, Any]], _Evaluation]] = {
    "faster-coco-eval": _by_faster_coco_eval,
    "pycocotools": _by_pycocotools,
}


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
