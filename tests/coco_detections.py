"""Detections in COCO's terms, for a test."""

import numpy as np

from fiber_cli.tasks.regions.coco_ap import CocoDetections


def detections(rows):
    """(image, category, xywh, score) rows."""
    images, categories, boxes, scores = zip(*rows, strict=True) if rows else ([], [], [], [])
    return CocoDetections(
        np.array(images, int), np.array(categories, int), np.array(boxes, float).reshape(-1, 4), np.array(scores, float)
    )
