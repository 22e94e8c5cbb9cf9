"""What a detector finds, as plain values in the user's words and pixels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from fiber_cli.boxes import agnostic_nms
from fiber_cli.errors import optional

if TYPE_CHECKING:
    import supervision


class Detection(NamedTuple):
    """label: the user's own text, and index: its number among those asked for. box: x1, y1, x2, y2, the edges in
    pixels of the upright picture: x2 - x1 is the width, and the whole picture is 0, 0, width, height."""

    label: str
    index: int  # type: ignore[assignment]  # a tuple's method has this name
    score: float
    box: tuple[float, float, float, float]


def detections_of(rows: np.ndarray, names: Sequence[str], size: tuple[int, int]) -> list[Detection]:
    """Of a task's rows, float64 (n, 6): a box that names its first and last pixel, score and label. size: (width,
    height) of the picture, beyond which no edge lies."""
    last_edges = np.minimum(rows[:, 2:4] + 1, size)
    boxes = np.concatenate([rows[:, :2], last_edges], axis=1)
    scores, labels = rows[:, 4].tolist(), rows[:, 5].astype(int).tolist()
    detections = []
    for (x1, y1, x2, y2), score, label in zip(boxes.tolist(), scores, labels, strict=True):
        detections.append(Detection(names[label], label, score, (x1, y1, x2, y2)))
    return detections


def best_of_objects(detections: Sequence[Detection], iou: float) -> list[Detection]:
    """Without those, best first, that a better one of whatever label overlaps by more than `iou`: class-agnostic
    NMS. None overlaps by more than 1."""
    boxes = torch.tensor([detection.box for detection in detections], dtype=torch.float64).reshape(-1, 4)
    scores = torch.tensor([detection.score for detection in detections], dtype=torch.float64)
    return [detections[row] for row in agnostic_nms(boxes, scores, iou).tolist()]


def to_supervision(detections: Sequence[Detection]) -> "supervision.Detections":
    """The detections of one image for the package `supervision`: `data["class_name"]` has the labels."""
    package = optional("supervision", "supervision is not installed; get it by `pip install supervision`")
    boxes, scores, indices, labels = [], [], [], []
    for detection in detections:
        boxes.append(detection.box)
        scores.append(detection.score)
        indices.append(detection.index)
        labels.append(detection.label)
    return package.Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=np.array(scores, np.float32),
        class_id=np.array(indices, int),
        data={"class_name": np.array(labels, str)},
    )
