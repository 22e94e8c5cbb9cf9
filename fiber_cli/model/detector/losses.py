"""The sums behind the losses of the published head.

Shapes: B images, N anchors of all levels (finest first, row-major), L text length.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fiber_cli.boxes import giou
from fiber_cli.model.detector.anchors import centres_of, decode_boxes, make_anchors
from fiber_cli.model.detector.atss import assign, side_distances
from fiber_cli.model.detector.detection_head import Truth, token_focal

if TYPE_CHECKING:
    from fiber_cli.model.detector.head import HeadOutput


class LossSums(NamedTuple):
    """Sums over one rank's batch; the first three carry the graph. `box` is weighted by the centerness targets,
    whose sum is `centerness_target`; `positives` counts the matched anchors."""

    token: Tensor
    box: Tensor
    centerness: Tensor
    centerness_target: Tensor
    positives: Tensor


def centerness_of(points: Tensor, boxes: Tensor) -> Tensor:
    """1 in the middle of a box, 0 on its border."""
    left, top, right, bottom = side_distances(points, boxes).unbind(-1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (across * down).sqrt()


def loss_sums(out: "HeadOutput", truth: Truth) -> LossSums:
    """The head's output against the true boxes.

    Every anchor is computed, and those that are not positive count nothing: how many are is known on the device alone,
    and asking would keep the host waiting for it.
    """
    anchors = make_anchors(out.sizes, out.deltas)
    targets = _match(out, anchors, truth)
    positive_BN = targets.positive_BN
    centerness_target = centerness_of(centres_of(anchors), targets.boxes_BN4) * positive_BN
    centerness = F.binary_cross_entropy_with_logits(out.centerness, centerness_target, reduction="none")
    decoded_BN4 = decode_boxes(out.deltas, anchors)
    box = centerness_target * torch.where(positive_BN, 1 - giou(decoded_BN4, targets.boxes_BN4), 0.0)
    token = token_focal(out.logits, targets.tokens_BNL) * truth.mask[:, None]
    return LossSums(
        token.sum(),
        box.sum(),
        torch.where(positive_BN, centerness, 0.0).sum(),
        centerness_target.sum(),
        positive_BN.sum(),
    )


class _Targets(NamedTuple):
    """Which anchors are matched, bool; the boxes that they are to find, of the others the anchors themselves; and the
    tokens that all are to name, bool."""

    positive_BN: Tensor
    boxes_BN4: Tensor
    tokens_BNL: Tensor


def _match(out: "HeadOutput", anchors: Tensor, truth: Truth) -> _Targets:
    true_boxes = truth.padded(anchors)
    matched_BN = assign(anchors, out.level_lengths, true_boxes.boxes_BG4, true_boxes.is_box_BG)
    positive_BN = matched_BN >= 0
    numbers_BN4 = matched_BN.clamp(min=0)[:, :, None].expand(-1, -1, 4)
    matched_boxes = true_boxes.boxes_BG4.gather(1, numbers_BN4)
    boxes_BN4 = torch.where(positive_BN[:, :, None], matched_boxes, anchors)
    return _Targets(positive_BN, boxes_BN4, truth.tokens_of_batch(true_boxes.names_BGL, matched_BN))
