"""The sums behind the detector's losses.

Shapes: B images, N anchors of all levels (finest first, row-major), G true boxes of one image, L text length, P
positive anchors of the batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fiber_cli.boxes import giou
from fiber_cli.model.detector.anchors import centres_of, decode_boxes, make_anchors
from fiber_cli.model.detector.atss import assign, side_distances
from fiber_cli.model.detector.head import HeadOutput


class LossSums(NamedTuple):
    """Sums over one rank's batch; the first three carry the graph. `box` is weighted by the centerness targets,
    whose sum is `centerness_target`; `positives` counts the matched anchors."""

    token: Tensor
    box: Tensor
    centerness: Tensor
    centerness_target: Tensor
    positives: Tensor


def token_focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss (alpha 0.25, gamma 2) of every logit; targets bool, of the same shape."""
    miss = torch.where(targets, -logits, logits)
    weight = torch.where(targets, 0.25, 0.75)
    return weight * miss.sigmoid().square() * F.softplus(miss)


def centerness_of(points: Tensor, boxes: Tensor) -> Tensor:
    """1 in the middle of a box, 0 on its border."""
    left, top, right, bottom = side_distances(points, boxes).unbind(-1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (across * down).sqrt()


def loss_sums(
    out: HeadOutput,
    mask: Tensor,
    boxes: Sequence[Tensor],
    positive_map: Sequence[Tensor],
    *,
    last_token_unmatched: bool = False,
) -> LossSums:
    """The head's output against the true boxes.

    mask: bool (B, L), real tokens; boxes: per image (G, 4) xyxy, G may be 0; positive_map: per image (G, L), non-zero
    where a token names the box. An unmatched anchor names no token; `last_token_unmatched` is the published target,
    which makes it name the last column (felt where a text fills all of them).
    """
    anchors = make_anchors(out.sizes, out.deltas)
    targets = _match(out, anchors, boxes, positive_map, last_token_unmatched)
    positive_BN, boxes_P4 = targets.positive_BN, targets.boxes_P4
    anchors_P4 = anchors.expand_as(out.deltas)[positive_BN]
    centerness_target = centerness_of(centres_of(anchors_P4), boxes_P4)
    centerness = F.binary_cross_entropy_with_logits(out.centerness[positive_BN], centerness_target, reduction="sum")
    decoded_P4 = decode_boxes(out.deltas[positive_BN], anchors_P4)
    box = centerness_target * (1 - giou(decoded_P4, boxes_P4))
    token = token_focal(out.logits, targets.tokens_BNL) * mask[:, None]
    return LossSums(token.sum(), box.sum(), centerness, centerness_target.sum(), positive_BN.sum())


class _Targets(NamedTuple):
    """Which anchors are matched, bool; the boxes that they are to find; and the tokens that all are to name, bool."""

    positive_BN: Tensor
    boxes_P4: Tensor
    tokens_BNL: Tensor


def _match(
    out: HeadOutput,
    anchors: Tensor,
    boxes: Sequence[Tensor],
    positive_map: Sequence[Tensor],
    last_token_unmatched: bool,
) -> _Targets:
    level_lengths = [height * width for height, width in out.sizes]
    tokens_BNL = torch.zeros_like(out.logits, dtype=torch.bool)
    positives, matched_boxes = [], []
    for tokens_NL, true_boxes, names_GL in zip(tokens_BNL, boxes, positive_map, strict=True):
        true_boxes = true_boxes.to(anchors)
        matched_N = assign(anchors, level_lengths, true_boxes)
        positive_N = matched_N >= 0
        box_numbers = matched_N[positive_N]
        tokens_NL[positive_N] = names_GL.to(out.logits.device).bool()[box_numbers]
        if last_token_unmatched:
            tokens_NL[:, -1] |= ~positive_N
        positives.append(positive_N)
        matched_boxes.append(true_boxes[box_numbers])
    return _Targets(torch.stack(positives), torch.cat(matched_boxes), tokens_BNL)
