"""torchvision's Faster R-CNN with tokens in place of classes, against torchvision's losses with classes."""

import pytest
import torch
from torchvision.models.detection.roi_heads import fastrcnn_loss

from fiber_cli.model.detector.detection_head import Truth, token_focal
from fiber_cli.model.detector.faster_rcnn import FasterRcnnHead
from fiber_cli.model.detector.torchvision_boxes import to_edges

CHANNELS, TEXT, TOKENS = 32, 12, 5
SIDES = ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1))
BOXES = [torch.tensor([[4.0, 6, 60, 50], [30, 10, 90, 40]]), torch.zeros(0, 4)]
NAMES = [torch.eye(TOKENS)[[3, 1]], torch.zeros(0, TOKENS)]
TRUTH = Truth(torch.tensor([[True] * TOKENS, [True, True, False, False, False]]), BOXES, NAMES)


def pyramid() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, CHANNELS, *side) for side in SIDES]


@pytest.fixture
def head() -> FasterRcnnHead:
    torch.manual_seed(0)
    return FasterRcnnHead(CHANNELS, TEXT)


def text() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(2, TOKENS, TEXT)


def test_true_boxes_are_not_among_those_that_training_learns_from(head):
    out = head.train()(pyramid(), text(), truth=TRUTH)
    first, second = out.sampled.matched
    assert set(first.tolist()) == {-1, 0, 1}
    assert set(second.tolist()) == {-1}
    assert [len(logits) for logits in out.logits] == [len(first), len(second)]
    # From the true box itself nothing is to be moved.
    for number in (0, 1):
        assert (out.sampled.deltas[0][first == number].abs().amax(1) < 1e-5).any()


def test_training_learns_from_more_regions_than_are_set():
    head = FasterRcnnHead(CHANNELS, TEXT, sampled_regions=16).train()
    out = head(pyramid(), text(), truth=TRUTH)
    assert [len(matched) for matched in out.sampled.matched] == [16, 16]
    assert 2 <= int((out.sampled.matched[0] >= 0).sum()) <= 4


def test_losses_are_not_torchvisions(head):
    """Of boxes; and of tokens the focal loss over the real ones, of which regions without a box name none."""
    out = head.train()(pyramid(), text(), truth=TRUTH)
    sums = out.loss_sums(TRUTH)
    labels = [(matched >= 0).long() for matched in out.sampled.matched]
    of_two_classes = torch.zeros(len(out.deltas), 2), out.deltas.repeat(1, 2)
    _, of_boxes = fastrcnn_loss(*of_two_classes, labels, list(out.sampled.deltas))
    torch.testing.assert_close(sums["reg_loss"].total / sums["reg_loss"].divisor, of_boxes)
    expected = 0.0
    for image, matched in enumerate(out.sampled.matched):
        targets = torch.zeros(len(matched), TOKENS, dtype=torch.bool)
        for row, number in enumerate(matched.tolist()):
            if number >= 0:
                targets[row] = NAMES[image][number].bool()
        expected = expected + (token_focal(out.logits[image], targets) * TRUTH.mask[image]).sum()
    torch.testing.assert_close(sums["token_loss"].total, expected)
    assert sums["token_loss"].divisor == sum(int(label.sum()) for label in labels) > 0
    assert (
        sums["objectness_loss"].total / sums["objectness_loss"].divisor == out.sampled.of_proposals["objectness_loss"]
    )
    assert sums.keys() == {"token_loss", "reg_loss", "objectness_loss", "proposal_loss"}


@torch.no_grad()
def test_regions_of_an_image_depend_on_the_others(head):
    head.eval()
    out = head(pyramid(), text())
    assert out.sampled is None
    for image in (0, 1):
        rows = slice(image, image + 1)
        alone = head([level[rows] for level in pyramid()], text()[rows]).regions(0)
        together = out.regions(image)
        assert together.level_lengths == (len(together.boxes),)
        assert len(together.boxes) == len(together.logits) > 5
        torch.testing.assert_close(together.boxes, alone.boxes, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.logits, alone.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(to_edges(together.boxes), out.boxes[image])


def test_a_batch_without_boxes_has_no_loss_of_tokens(head):
    empty = TRUTH._replace(boxes=[torch.zeros(0, 4)] * 2, names=[torch.zeros(0, TOKENS)] * 2)
    sums = head.train()(pyramid(), text(), truth=empty).loss_sums(empty)
    assert sums["token_loss"].total > 0
    assert sums["token_loss"].divisor == sums["reg_loss"].total == sums["proposal_loss"].total == 0
    sum(each.total for each in sums.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@torch.no_grad()
def test_boxes_are_computed_at_the_precision_of_autocast(head):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = head.train()(pyramid(), text(), truth=TRUTH)
    assert {x.dtype for x in (*out.boxes, *out.logits, *out.sampled.deltas, out.deltas)} == {torch.float32}
