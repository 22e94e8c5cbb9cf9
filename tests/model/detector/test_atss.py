"""Assignment of anchors to boxes."""

import numpy as np
import torch

from fiber_cli.boxes import iou
from fiber_cli.model.detector.anchors import make_anchors
from fiber_cli.model.detector.atss import assign, side_distances


def test_assignment_by_hand():
    """One box that is exactly an anchor of the second level: it alone stands out, with its like around it."""
    sizes = ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1))
    level_lengths = [h * w for h, w in sizes]
    anchors = make_anchors(sizes, torch.zeros(()))
    chosen = 256 + 3 * 8 + 4
    matched = assign(anchors, level_lengths, anchors[chosen : chosen + 1])
    assert matched[chosen] == 0
    positive = (matched >= 0).nonzero()[:, 0]
    assert set(positive.tolist()) <= set(range(256, 256 + 64))
    # Twice the same box: the first wins every tie.
    twice = assign(anchors, level_lengths, anchors[chosen].repeat(2, 1))
    assert torch.equal(twice, matched)
    assert (assign(anchors, level_lengths, torch.zeros(0, 4)) == -1).all()


def reference_assign(anchors, level_lengths, boxes):
    """ATSS in loops."""
    best = {}
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    for g, box in enumerate(boxes):
        candidates, first = [], 0
        for count in level_lengths:
            distance = (centre[first : first + count] - (box[:2] + box[2:]) / 2).square().sum(1)
            candidates += [first + int(n) for n in distance.argsort()[:9]]
            first += count
        overlaps = [float(iou(anchors[n], box, inclusive=True)) for n in candidates]
        threshold = np.mean(overlaps) + np.std(overlaps, ddof=1)
        for n, overlap in zip(candidates, overlaps, strict=True):
            x, y = centre[n].tolist()
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if overlap >= threshold and inside and overlap > best.get(n, (-1.0, -1))[0]:
                best[n] = (overlap, g)
    return torch.tensor([best.get(n, (0, -1))[1] for n in range(len(anchors))])


def test_assignment_against_loops():
    torch.manual_seed(0)
    sizes = ((24, 28), (12, 14), (6, 7), (3, 4), (2, 2))
    level_lengths = [h * w for h, w in sizes]
    anchors = make_anchors(sizes, torch.zeros(()))
    corner = torch.rand(12, 2) * 120
    boxes = torch.cat([corner, corner + 10 + torch.rand(12, 2) * 90], 1)
    matched = assign(anchors, level_lengths, boxes)
    assert torch.equal(matched, reference_assign(anchors, level_lengths, boxes))
    assert len(set(matched.tolist())) > 8


def test_side_distances_are_negative_outside():
    boxes = torch.tensor([[0.0, 0, 10, 4]])
    points = torch.tensor([[3.0, 1], [12, 2]])
    assert side_distances(points, boxes).tolist() == [[3, 1, 7, 3], [12, 2, -2, 2]]


def test_images_of_a_batch_are_assigned_differently_than_alone():
    """Of different numbers of boxes, none among them: padding is no box and draws no anchor from one."""
    torch.manual_seed(1)
    sizes = ((24, 28), (12, 14), (6, 7), (3, 4), (2, 2))
    level_lengths = [h * w for h, w in sizes]
    anchors = make_anchors(sizes, torch.zeros(()))
    corner = torch.rand(3, 7, 2) * 120
    boxes = torch.cat([corner, corner + 10 + torch.rand(3, 7, 2) * 90], 2)
    counts = (7, 0, 3)
    is_box = torch.arange(7) < torch.tensor(counts)[:, None]
    together = assign(anchors, level_lengths, boxes, is_box)
    for image, count in enumerate(counts):
        assert torch.equal(together[image], assign(anchors, level_lengths, boxes[image, :count]))
    assert (together[0] >= 0).sum() > (together[2] >= 0).sum() > 0
