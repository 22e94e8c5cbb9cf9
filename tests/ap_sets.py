"""Made sets of boxes and detections on which libraries of AP are held against each other."""

import numpy as np

from fiber_cli.tasks.regions.coco_ap import CocoDetections


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
):
    """(truth in COCO's form, detections, image ids): objects an image of a Poisson distribution, areas smaller than
    their boxes as of masks, some of crowds; half of the detections lie near an object, of its category or another.
    score_steps: so many different scores, that many are equal."""
    rng = np.random.default_rng(seed)
    image_ids = (3 * np.arange(images) + 5).tolist()
    category_ids = (2 * np.arange(categories) + 1).tolist()
    annotations, rows = [], []
    for image in image_ids:
        count = int(rng.poisson(objects))
        corners, sides = rng.uniform(0, 400, (count, 2)), rng.uniform(1, largest, (count, 2))
        labels = rng.integers(0, categories, count)
        for corner, side, label in zip(corners, sides, labels, strict=True):
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": image,
                    "category_id": category_ids[label],
                    "bbox": [*corner.tolist(), *side.tolist()],
                    "area": float(side.prod() * rng.uniform(0.3, 1)),
                    "iscrowd": int(rng.random() < crowds),
                }
            )
        for _ in range(detections):
            if count and rng.random() < 0.5:
                chosen = rng.integers(count)
                box = np.concatenate([corners[chosen], sides[chosen]]) + rng.normal(0, 4, 4)
                label = labels[chosen] if rng.random() < 0.7 else rng.integers(categories)
            else:
                box = np.concatenate([rng.uniform(0, 400, 2), rng.uniform(1, largest, 2)])
                label = rng.integers(categories)
            box[2:] = box[2:].clip(0.5)
            score = rng.random()
            if score_steps is not None:
                score = np.floor(score * score_steps) / score_steps
            rows.append([image, category_ids[label], *box, score])
    table = np.array(rows, float).reshape(-1, 7)
    found = CocoDetections(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:6], table[:, 6])
    truth = {
        "images": [{"id": image} for image in image_ids],
        "categories": [{"id": number, "name": f"name {number}"} for number in category_ids],
        "annotations": annotations,
    }
    return truth, found, image_ids
