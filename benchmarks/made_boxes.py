"""Made sets of boxes and detections, on which libraries of AP are held against each other."""

from typing import Any

import numpy as np

from fiber_cli.tasks.regions.coco_ap import CocoDetections

#: Pixels of a side of the images.
SIDE = 400


def made_set(
    images: int,
    detections: int,
    categories: int,
    seed: int,
    *,
    objects: float = 4.0,
    crowds: float = 0.1,
    score_steps: int | None = None,
    largest: int = 200,
) -> tuple[dict[str, Any], CocoDetections, list[int]]:
    """(truth in COCO's form, detections, image ids): `objects` an image on average, areas smaller than their boxes as
    of masks, a share of `crowds`; half of the detections lie near an object, of its category or another. largest: side
    of a box in pixels; score_steps: so many different scores, that many are equal."""
    rng = np.random.default_rng(seed)
    image_ids = (3 * np.arange(images) + 5).tolist()
    category_ids = 2 * np.arange(categories) + 1
    annotations: list[dict[str, Any]] = []
    boxes, labels = [], []
    for image in image_ids:
        count = int(rng.poisson(objects))
        objects_of_image = _boxes(rng, count, largest)
        of_objects = rng.integers(0, categories, count)
        areas = objects_of_image[:, 2:].prod(1) * rng.uniform(0.3, 1, count)
        are_crowds = rng.random(count) < crowds
        for box, label, area, is_crowd in zip(objects_of_image, of_objects, areas, are_crowds, strict=True):
            annotation = {"id": len(annotations), "image_id": image, "category_id": int(category_ids[label])}
            annotation |= {"bbox": box.tolist(), "area": float(area), "iscrowd": int(is_crowd)}
            annotations.append(annotation)
        near = detections // 2 if count else 0
        chosen = rng.integers(0, max(count, 1), near)
        noisy = objects_of_image[chosen] + rng.normal(0, 4, (near, 4))
        elsewhere = _boxes(rng, detections - near, largest)
        boxes.append(np.concatenate([noisy, elsewhere]))
        guesses = rng.integers(0, categories, detections)
        is_right = rng.random(near) < 0.7
        guesses[:near] = np.where(is_right, of_objects[chosen], guesses[:near])
        labels.append(guesses)
    scores = rng.random(images * detections)
    if score_steps is not None:
        scores = np.floor(scores * score_steps) / score_steps
    of_all = np.concatenate(boxes)
    of_all[:, 2:] = of_all[:, 2:].clip(0.5)
    found = CocoDetections(np.repeat(image_ids, detections), category_ids[np.concatenate(labels)], of_all, scores)
    truth = {
        "images": [{"id": image} for image in image_ids],
        "categories": [{"id": number, "name": f"name {number}"} for number in category_ids.tolist()],
        "annotations": annotations,
    }
    return truth, found, image_ids


def _boxes(rng: np.random.Generator, count: int, largest: int) -> np.ndarray:
    """xywh in pixels (count, 4)."""
    return np.concatenate([rng.uniform(0, SIDE, (count, 2)), rng.uniform(1, largest, (count, 2))], 1)
