"""The sums behind the losses of the published head.

Shapes: B images, N anchors of all levels (finest first, row-major), L text length, P positive anchors of the batch.
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
    """The head's output against the true boxes."""
    anchors = make_anchors(out.sizes, out.deltas)
    targets = _match(out, anchors, truth)
    positive_BN, boxes_P4 = targets.positive_BN, targets.boxes_P4
    anchors_P4 = anchors.expand_as(out.deltas)[positive_BN]
    centerness_target = centerness_of(centres_of(anchors_P4), boxes_P4)
    centerness = F.binary_cross_entropy_with_logits(out.centerness[positive_BN], centerness_target, reduction="sum")
    decoded_P4 = decode_boxes(out.deltas[positive_BN], anchors_P4)
    box = centerness_target * (1 - giou(decoded_P4, boxes_P4))
    token = token_focal(out.logits, targets.tokens_BNL) * truth.mask[:, None]
    return LossSums(token.sum(), box.sum(), centerness, centerness_target.sum(), positive_BN.sum())


class _Targets(NamedTuple):
    """Which anchors are matched, bool; the boxes that they are to find; and the tokens that all are to name, bool."""

    positive_BN: Tensor
    boxes_P4: Tensor
    tokens_BNL: Tensor


def _match(out: "HeadOutput", anchors: Tensor, truth: Truth) -> _Targets:
    tokens, positives, matched_boxes = [], [], []
    for image, boxes in enumerate(truth.boxes):
        true_boxes = boxes.to(anchors)
        matched_N = assign(anchors, out.level_lengths, true_boxes)
        positive_N = matched_N >= 0
        tokens.append(truth.tokens(image, matched_N))
        positives.append(positive_N)
        matched_boxes.append(true_boxes[matched_N[positive_N]])
    return _Targets(torch.stack(positives), torch.cat(matched_boxes), torch.stack(tokens))
