"""Overlaps by hand, and suppression within labels alone."""

import json

import pytest
import torch

from fiber_cli.boxes import agnostic_nms, class_nms, giou, iou


def test_boxes():
    a, b = torch.tensor([0.0, 0, 9, 9]), torch.tensor([5.0, 0, 14, 9])
    assert iou(a, b).item() == pytest.approx(36 / (81 + 81 - 36))
    assert iou(a, b, inclusive=True).item() == pytest.approx(50 / 150)
    # Apart by 11 in a hull of 30 x 9; touching nothing.
    assert giou(a, torch.tensor([20.0, 0, 30, 9])).item() == pytest.approx(-(30 * 9 - 81 - 90) / (30 * 9), rel=1e-5)
    assert giou(torch.tensor([5.0, 5, 1, 1]), a).item() == pytest.approx(0, abs=1e-6)


def test_labels_far_apart_do_not_suppress_each_other():
    """With 1,203 labels and a wide image the same box of neighbouring labels survives, its near twin does not."""
    box = torch.tensor([[1290.0, 780, 1292, 782]]).repeat(4, 1)
    boxes = torch.cat([box, box + torch.tensor([0.0, 0, 0, 0.2])])
    labels = torch.tensor([1199, 1200, 1201, 1202] * 2)
    kept = class_nms(boxes, torch.linspace(0.9, 0.2, 8), labels, 0.6)
    assert kept.tolist() == [0, 1, 2, 3]


def test_an_object_keeps_the_worse_of_its_names():
    """IoU of neighbours 80 / 120, of the first and the third 60 / 140; equal boxes share all."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10], [4, 0, 14, 10]])
    scores = torch.tensor([0.5, 0.9, 0.4, 0.4])
    kept = {threshold: agnostic_nms(boxes, scores, threshold).tolist() for threshold in (0.6, 0.67, 0.99, 1.0)}
    assert kept == {0.6: [1], 0.67: [1, 0, 2], 0.99: [1, 0, 2], 1.0: [1, 0, 2, 3]}
    assert agnostic_nms(boxes[:0], scores[:0], 0.8).tolist() == []


def test_suppression_is_the_published_one(shared):
    units = json.loads((shared / "golden" / "fine_data_cases.json").read_text())["units"]
    nms = {name: torch.tensor(value) for name, value in units["ml_nms"].items()}
    kept = class_nms(nms["boxes"], nms["scores"], nms["labels"].long(), float(nms["thr"]))
    assert sorted(kept.tolist()) == nms["keep_indices"].tolist()
