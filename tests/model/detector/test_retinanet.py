"""torchvision's RetinaNet head with tokens in place of classes, against torchvision's losses with classes."""

import pytest
import torch
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead

from fiber_cli.model.detector.anchors import STRIDES
from fiber_cli.model.detector.detection_head import Truth
from fiber_cli.model.detector.retinanet import RetinaNetHead, RetinaNetOutput, match
from fiber_cli.model.detector.torchvision_boxes import to_edges

CHANNELS, TEXT, TOKENS = 32, 12, 5
SIDES = ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1))
BOXES = torch.tensor([[4.0, 6, 60, 50], [30, 10, 90, 40]])


def pyramid(images: int = 1) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(images, CHANNELS, *side) for side in SIDES]


def make_head() -> RetinaNetHead:
    torch.manual_seed(0)
    return RetinaNetHead(CHANNELS, TEXT)


def truth_of(boxes: torch.Tensor, tokens: list[int], mask: list[bool] | None = None) -> Truth:
    names = torch.nn.functional.one_hot(torch.tensor(tokens, dtype=torch.int64), TOKENS)
    return Truth(torch.tensor([mask or [True] * TOKENS]), [boxes], [names])


def test_losses_are_not_torchvisions_where_tokens_are_classes():
    """Of one picture whose boxes name one token each."""
    head = make_head()
    levels = pyramid()
    text = torch.randn(1, TOKENS, TEXT)
    out = head(levels, text)
    deltas = head.boxes(levels)
    sums = out.loss_sums(truth_of(BOXES, [3, 1]))
    matched = [match(to_edges(BOXES), out.anchors)]
    targets = [{"boxes": to_edges(BOXES), "labels": torch.tensor([3, 1])}]
    classes = RetinaNetClassificationHead(CHANNELS, 9, TOKENS)
    of_classes = classes.compute_loss(targets, {"cls_logits": out.logits}, matched)
    torch.testing.assert_close(sums["token_loss"].total / sums["token_loss"].divisor, of_classes)
    regression = RetinaNetRegressionHead(CHANNELS, 9)
    regression._loss_type = "giou"
    of_boxes = regression.compute_loss(targets, {"bbox_regression": deltas}, [out.anchors], matched)
    torch.testing.assert_close(sums["reg_loss"].total / sums["reg_loss"].divisor, of_boxes)
    assert sums["reg_loss"].divisor > 0


def test_every_box_has_no_anchor():
    """Also one smaller than every anchor."""
    head = make_head()
    anchors = head(pyramid(), torch.randn(1, TOKENS, TEXT)).anchors
    assert len(anchors) == 9 * sum(height * width for height, width in SIDES)
    tiny = torch.tensor([[80.0, 56, 84, 60], *BOXES.tolist()])
    assert set(match(tiny, anchors).tolist()) >= {0, 1, 2, -1}
    assert (match(torch.zeros(0, 4), anchors) == -1).all()


def test_anchors_have_other_sides_than_torchvisions():
    sides = [sizes[0] for sizes in make_head().anchors.sizes]
    assert sides == [4 * stride for stride in STRIDES]
    assert list(make_head().anchors.sizes[0]) == [32, 40, 50]


def test_padding_tokens_and_anchors_between_the_thresholds_are_learned_from():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4.5], [50, 50, 60, 60]])
    logits = torch.zeros(1, 3, TOKENS, requires_grad=True)
    out = RetinaNetOutput(anchors[None], logits, anchors, [3])
    mask = [True, True, True, False, False]
    out.loss_sums(truth_of(torch.tensor([[0.0, 0, 9, 9]]), [2], mask))["token_loss"].total.backward()
    assert logits.grad.ne(0)[0].tolist() == [mask, [False] * TOKENS, mask]
    assert (logits.grad[0, 0] < 0).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("images", [1, 3])
@torch.no_grad()
def test_regions_are_of_another_image_or_in_other_pixels(images):
    head = make_head().eval()
    text = torch.randn(images, TOKENS, TEXT)
    out = head(pyramid(images), text)
    last = out.regions(images - 1)
    assert last.quality is None
    assert sum(last.level_lengths) == len(last.boxes) == len(last.logits)
    alone = head([level[-1:] for level in pyramid(images)], text[-1:]).regions(0)
    torch.testing.assert_close(last.boxes, alone.boxes, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(last.logits, alone.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(to_edges(last.boxes), out.boxes[-1])


@torch.no_grad()
def test_output_is_not_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = make_head()(pyramid(), torch.randn(1, TOKENS, TEXT))
    assert {out.boxes.dtype, out.logits.dtype, out.anchors.dtype} == {torch.float32}
