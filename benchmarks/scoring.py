"""Scoring of detections: COCO's AP by faster-coco-eval against pycocotools, LVIS's by the package's own code.

    python -m benchmarks.scoring                                  # 5,000 images with 100 detections each
    python -m benchmarks.scoring --images 500 --json scoring.json

Prints, from one run, seconds of processor time of both libraries on the same made set of 80 categories, and the largest
difference between their numbers, which must be nothing. Beside it LVIS's AP of 300 detections an image and 400
categories by fiber's own code, which the tests hold to the lvis package, and by faster-coco-eval's form of it.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common import write
from benchmarks.made_boxes import made_set
from fiber_cli.distributed.device import processor_name
from fiber_cli.tasks.regions.coco_ap import ClassTable, CocoDetections, coco_ap
from fiber_cli.tasks.regions.lvis_ap import LVIS_PER_IMAGE, lvis_ap

CATEGORIES, LVIS_CATEGORIES = 80, 400
#: LVIS's lists of an image: categories that it is without, and those that are not marked exhaustively.
ABSENT, NOT_EXHAUSTIVE = 20, 3


def cpu_seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of processor time of a call, and what it returns."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def largest_difference(
    first: tuple[dict[str, float], ClassTable], second: tuple[dict[str, float], ClassTable]
) -> float:
    """Between the numbers of two libraries, in points; they must have the same names."""
    metrics, table = first
    others, other_table = second
    assert metrics.keys() == others.keys()
    assert [row["name"] for row in table] == [row["name"] for row in other_table]
    differences = [abs(metrics[name] - others[name]) for name in metrics]
    for row, other in zip(table, other_table, strict=True):
        differences += [abs(row["ap"] - other["ap"]), abs(row["ap50"] - other["ap50"])]
    return max(differences)


def with_lists(truth: dict[str, Any]) -> dict[str, Any]:
    """A made set in LVIS's form."""
    rng = np.random.default_rng(0)
    ids = [category["id"] for category in truth["categories"]]
    for image in truth["images"]:
        image["neg_category_ids"] = rng.choice(ids, ABSENT, replace=False).tolist()
        image["not_exhaustive_category_ids"] = rng.choice(ids, NOT_EXHAUSTIVE, replace=False).tolist()
    for number, category in enumerate(truth["categories"]):
        category["frequency"] = "rcf"[number % 3]
    return truth


def lvis_by_faster_coco_eval(truth: dict[str, Any], detections: CocoDetections) -> float:
    """AP in percent."""
    from faster_coco_eval import COCO, COCOeval_faster

    results = []
    for number, row in enumerate(detections.to_json(), 1):
        _, _, width, height = row["bbox"]
        results.append({**row, "id": number, "area": width * height, "iscrowd": 0})
    objects = [{**annotation, "id": number} for number, annotation in enumerate(truth["annotations"], 1)]
    evaluation = COCOeval_faster(
        COCO({**truth, "annotations": objects}), COCO({**truth, "annotations": results}), "bbox", lvis_style=True
    )
    evaluation.params.maxDets = [LVIS_PER_IMAGE]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return 100 * float(evaluation.stats[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--detections", type=int, default=100, help="of an image")
    parser.add_argument("--lvis-images", type=int, default=500)
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args()
    made = made_set(args.images, args.detections, CATEGORIES, seed=0, objects=7.0, crowds=0.02)
    fast_seconds, fast = cpu_seconds(lambda: coco_ap(*made, "faster-coco-eval"))
    slow_seconds, slow = cpu_seconds(lambda: coco_ap(*made, "pycocotools"))
    difference = largest_difference(fast, slow)
    print(f"COCO, {args.images:,} images x {args.detections} detections, {CATEGORIES} categories, one thread")
    print(f"faster-coco-eval {fast_seconds:7.2f} s   AP {fast[0]['detection/ap']:.4f}")
    print(f"pycocotools      {slow_seconds:7.2f} s   AP {slow[0]['detection/ap']:.4f}")
    print(f"{slow_seconds / fast_seconds:.1f} times faster, largest difference of any number {difference:.1e}")

    truth, found, _ = made_set(args.lvis_images, LVIS_PER_IMAGE, LVIS_CATEGORIES, seed=1, objects=12.0, crowds=0.0)
    truth = with_lists(truth)
    own_seconds, (own, _) = cpu_seconds(lambda: lvis_ap(truth, found))
    other_seconds, other = cpu_seconds(lambda: lvis_by_faster_coco_eval(truth, found))
    print(f"LVIS, {args.lvis_images:,} images x {LVIS_PER_IMAGE} detections, {LVIS_CATEGORIES} categories")
    print(f"fiber's own      {own_seconds:7.2f} s   AP {own['ap']:.4f}")
    print(f"faster-coco-eval {other_seconds:7.2f} s   AP {other:.4f}")
    report = {
        "cpu": processor_name(),
        "images": args.images,
        "detections": args.detections,
        "categories": CATEGORIES,
        "seconds": {"faster-coco-eval": fast_seconds, "pycocotools": slow_seconds},
        "time_ratio": slow_seconds / fast_seconds,
        "largest_difference": difference,
        "metrics": fast[0],
        "lvis_images": args.lvis_images,
        "lvis_seconds": {"own": own_seconds, "faster-coco-eval": other_seconds},
        "lvis_ap": {"own": own["ap"], "faster-coco-eval": other},
    }
    write(report, args.json)
    assert difference < 1e-9


if __name__ == "__main__":
    main()
