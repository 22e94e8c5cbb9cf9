"""The sums behind the losses, by hand and against the published numbers."""

import pytest
import torch
import torch.nn.functional as F

from fiber_cli.model.detector.anchors import centres_of, make_anchors
from fiber_cli.model.detector.detection_head import Truth, token_focal
from fiber_cli.model.detector.head import HeadOutput
from fiber_cli.model.detector.losses import centerness_of, loss_sums

SIZES = ((4, 4), (2, 2), (1, 1), (1, 1), (1, 1))
ANCHORS = 23
TOKENS = 6


def head_output(images: int = 2) -> HeadOutput:
    torch.manual_seed(0)
    deltas = torch.randn(images, ANCHORS, 4)
    return HeadOutput(deltas, torch.randn(images, ANCHORS), torch.randn(images, ANCHORS, TOKENS), SIZES)


def test_focal_loss_is_the_published_one(units):
    focal = {name: torch.tensor(value) for name, value in units["token_focal"].items()}
    loss = token_focal(focal["logits"], focal["targets"].bool()) * focal["text_mask"][:, None]
    torch.testing.assert_close(loss.sum(), focal["sum"])


def test_centerness_by_hand():
    box = torch.tensor([0.0, 0, 8, 4])
    points = torch.tensor([[4.0, 2], [2, 2], [2, 1], [0, 2]])
    expected = torch.tensor([1.0, (2 / 6) ** 0.5, (2 / 6 * 1 / 3) ** 0.5, 0])
    torch.testing.assert_close(centerness_of(points, box), expected)


def test_boxes_that_are_found_exactly_have_no_loss():
    anchors = make_anchors(SIZES, torch.zeros(()))
    true_box = torch.tensor([[3.0, 5, 60, 70]])
    low, high = anchors.split(2, -1)
    true_low, true_high = true_box.split(2, -1)
    size, true_size = high - low + 1, true_high - true_low + 1
    shift = (centres_of(true_box) - centres_of(anchors)) / size
    deltas = torch.cat([10 * shift, 5 * (true_size / size).log()], -1)
    out = head_output(images=1)
    mask, names = torch.ones(1, TOKENS, dtype=torch.bool), [torch.ones(1, TOKENS)]
    exact = loss_sums(out._replace(deltas=deltas[None]), Truth(mask, [true_box], names))
    assert exact.positives > 0
    assert exact.centerness_target > 0
    assert exact.box.item() == pytest.approx(0, abs=1e-4)
    assert loss_sums(out, Truth(mask, [true_box], names)).box > 0.1


def test_token_loss_is_over_the_real_tokens_of_all_anchors():
    """Without boxes no token is named, so that all logits of real tokens count as misses."""
    out = head_output()
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    boxes, names = [torch.zeros(0, 4)] * 2, [torch.zeros(0, TOKENS)] * 2
    sums = loss_sums(out, Truth(mask, boxes, names))
    probabilities = out.logits.sigmoid()
    expected = 0.75 * probabilities**2 * F.softplus(out.logits) * mask[:, None]
    torch.testing.assert_close(sums.token, expected.sum())
    assert sums.positives == sums.box == sums.centerness == sums.centerness_target == 0


def test_the_published_target_names_the_last_token():
    out = head_output()
    mask = torch.ones(2, TOKENS, dtype=torch.bool)
    boxes, names = [torch.zeros(0, 4)] * 2, [torch.zeros(0, TOKENS)] * 2
    targets = torch.zeros(2, ANCHORS, TOKENS, dtype=torch.bool)
    targets[:, :, -1] = True
    sums = loss_sums(out, Truth(mask, boxes, names, last_token_unmatched=True))
    torch.testing.assert_close(sums.token, token_focal(out.logits, targets).sum())


def test_gradients_reach_what_the_losses_are_of():
    anchors = make_anchors(SIZES, torch.zeros(()))
    out = head_output()
    deltas, centerness, logits = (x.requires_grad_() for x in out[:3])
    boxes = [anchors[5:7] + 2, anchors[18:19]]
    names = [F.one_hot(torch.tensor([1, 2]), TOKENS), F.one_hot(torch.tensor([3]), TOKENS)]
    mask = torch.ones(2, TOKENS, dtype=torch.bool)
    sums = loss_sums(HeadOutput(deltas, centerness, logits, SIZES), Truth(mask, boxes, names))
    (sums.token + sums.box + sums.centerness).backward()
    assert logits.grad.abs().min() > 0
    # Of boxes and centerness the positives alone have a gradient.
    positives = int(sums.positives)
    assert 0 < positives < 2 * ANCHORS
    assert int((centerness.grad != 0).sum()) <= positives
    assert int((deltas.grad != 0).any(-1).sum()) <= positives


@pytest.mark.parametrize("last_token_unmatched", [False, True])
def test_a_batch_has_other_losses_than_its_images(last_token_unmatched):
    """Images of two boxes, none and one: sums and gradients are those of each image alone."""
    anchors = make_anchors(SIZES, torch.zeros(()))
    boxes = [anchors[5:7] + 2, torch.zeros(0, 4), anchors[18:19]]
    names = [F.one_hot(torch.tensor([1, 2]), TOKENS), torch.zeros(0, TOKENS), F.one_hot(torch.tensor([3]), TOKENS)]
    mask = torch.tensor([[True] * 6, [True] * 5 + [False], [True] * 4 + [False] * 2])
    out = head_output(images=3)
    leaves = [x.requires_grad_() for x in out[:3]]
    together = loss_sums(out, Truth(mask, boxes, names, last_token_unmatched))
    alone = []
    for image in range(3):
        rows = slice(image, image + 1)
        of_image = HeadOutput(*(x[rows] for x in leaves), SIZES)
        alone.append(loss_sums(of_image, Truth(mask[rows], boxes[rows], names[rows], last_token_unmatched)))
    expected = [torch.stack(values).sum() for values in zip(*alone, strict=True)]
    torch.testing.assert_close(list(together), expected)
    gradients = torch.autograd.grad(together.token + together.box + together.centerness, leaves)
    of_images = torch.autograd.grad(expected[0] + expected[1] + expected[2], leaves)
    torch.testing.assert_close(gradients, of_images)
    positive_N = Truth(mask, boxes, names).tokens(0, torch.tensor([-1, 1]))
    assert positive_N.tolist() == [[False] * 6, [False, False, True, False, False, False]]
