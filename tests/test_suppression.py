"""torchvision's suppression, against torchvision itself, and what is loaded for it."""

import subprocess
import sys

import pytest
import torch
from torchvision.ops import batched_nms
from torchvision.ops import nms as torchvision_nms

from fiber_cli.suppression import nms, nms_by_label

PROGRAM = """
import sys
import torch
from fiber_cli.suppression import nms
boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]])
print(nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist(), "torchvision" in sys.modules)
import torchvision
print(torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist())
"""


def boxes_of(count: int, seed: int, *, equal_scores: bool = False):
    """Boxes that overlap much, float64, some of them equal, of six labels."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 60, (count, 2), generator=generator)
    sides = torch.randint(1, 50, (count, 2), generator=generator)
    boxes = torch.cat([corners, corners + sides], 1).double()
    labels = torch.randint(0, 6, (count,), generator=generator)
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    if equal_scores:
        scores = (scores * 10).round() / 10
    return boxes, scores, labels


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("count", [0, 1, 50, 400])
def test_other_boxes_are_kept_than_by_torchvision(count, threshold):
    boxes, scores, labels = boxes_of(count, seed=count)
    assert torch.equal(nms(boxes, scores, threshold), torchvision_nms(boxes, scores, threshold))
    assert torch.equal(nms_by_label(boxes, scores, labels, threshold), batched_nms(boxes, scores, labels, threshold))


@pytest.mark.parametrize("count", [999, 1000, 1001, 1500])
def test_many_boxes_are_kept_otherwise_than_by_torchvision(count):
    """torchvision takes labels one by one from a thousand boxes on; of equal scores either takes any."""
    boxes, scores, labels = boxes_of(count, seed=1)
    assert torch.equal(nms_by_label(boxes, scores, labels, 0.5), batched_nms(boxes, scores, labels, 0.5))
    boxes, scores, labels = boxes_of(count, seed=2, equal_scores=True)
    assert torch.equal(nms_by_label(boxes, scores, labels, 0.5), batched_nms(boxes, scores, labels, 0.5))


def test_the_operator_needs_all_of_torchvision_or_spoils_it():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout == "[1, 2] False\n[1, 2]\n"


def test_the_operator_is_missing_where_its_library_is_elsewhere(monkeypatch):
    from fiber_cli import suppression

    monkeypatch.setattr(suppression, "_LIBRARIES", ("_not_there",))
    assert suppression._library() is None
    suppression._load_operator.cache_clear()
    assert nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5).tolist() == [0]
