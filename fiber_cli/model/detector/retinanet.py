"""torchvision's RetinaNet head, whose anchors are aligned with tokens in place of classes.

Shapes: B batch, N anchors of all levels, C channels, L text length, G true boxes of one image, P positive anchors.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead
from torchvision.ops import box_iou, generalized_box_iou_loss

from fiber_cli.model.detector.anchors import STRIDES
from fiber_cli.model.detector.detection_head import (
    BOX_WEIGHT,
    DetectionHead,
    LossSum,
    Regions,
    Truth,
    token_focal,
    widened,
)
from fiber_cli.model.detector.torchvision_boxes import PyramidAnchors, from_edges, image_list, to_edges

#: Sides of anchors in strides, and their heights over their widths, as torchvision's.
ANCHOR_SIDES = (4, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3))
ASPECT_RATIOS = (0.5, 1.0, 2.0)
#: An anchor that overlaps a box by so much is matched, one below the lesser is background; between them it is neither.
MATCHED, BACKGROUND = 0.5, 0.4
#: Of GroupNorm in the towers; as everywhere in the detector.
GROUPS = 16


class TowerNorm(nn.Module):
    """GroupNorm under a name by which the optimiser knows that it is one: torchvision's layers have numbers alone."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        normed: Tensor = self.norm(x)
        return normed


class RetinaNetOutput(NamedTuple):
    """Float32. `boxes` (B, N, 4), edges; `logits` (B, N, L) before the sigmoid; `anchors` (N, 4), edges;
    level_lengths: how many of them each level has."""

    boxes: Tensor
    logits: Tensor
    anchors: Tensor
    level_lengths: list[int]

    def regions(self, image: int) -> Regions:
        """See `DetectionOutput`."""
        return Regions(from_edges(self.boxes[image]), self.logits[image], None, self.level_lengths)

    def loss_sums(self, truth: Truth) -> Mapping[str, LossSum]:
        """See `DetectionOutput`: focal loss over all tokens of the anchors that are matched or background, generalised
        IoU of the boxes of those matched."""
        tokens, boxes, positives = [], [], []
        for image, true_boxes in enumerate(truth.boxes):
            edges = to_edges(true_boxes.to(self.anchors))
            matched_N = match(edges, self.anchors)
            loss_NL = token_focal(self.logits[image], truth.tokens(image, matched_N)) * truth.mask[image]
            tokens.append(loss_NL[matched_N != Matcher.BETWEEN_THRESHOLDS].sum())
            is_matched = matched_N >= 0
            of_boxes = generalized_box_iou_loss(self.boxes[image][is_matched], edges[matched_N[is_matched]])
            boxes.append(of_boxes.sum())
            positives.append(is_matched.sum())
        count = torch.stack(positives).sum().to(self.logits)
        return {
            "token_loss": LossSum(torch.stack(tokens).sum(), count),
            "reg_loss": LossSum(torch.stack(boxes).sum(), count, weight=BOX_WEIGHT),
        }


def match(edges: Tensor, anchors: Tensor) -> Tensor:
    """The true box of every anchor (N, 4), of edges (G, 4): int64 (N,), of anchors without one torchvision's
    `Matcher.BELOW_LOW_THRESHOLD` or `BETWEEN_THRESHOLDS`, both negative. Every box has its best anchors."""
    if not len(edges):
        return torch.full((len(anchors),), Matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
    matched: Tensor = Matcher(MATCHED, BACKGROUND, allow_low_quality_matches=True)(box_iou(edges, anchors))
    return matched


class RetinaNetHead(DetectionHead):
    """Two towers of four convolutions; of what torchvision calls the logits of C classes each anchor has one vector,
    which is aligned with the tokens. Nine anchors a position."""

    OWN: ClassVar[tuple[str, ...]] = ("features.", "boxes.")

    def __init__(self, channels: int, text_dim: int, log_scale: float = 0.0):
        super().__init__()
        sides = []
        for stride in STRIDES:
            sides.append([int(side * stride) for side in ANCHOR_SIDES])
        self.anchors = PyramidAnchors(sides, [ASPECT_RATIOS] * len(STRIDES))
        count = len(ANCHOR_SIDES) * len(ASPECT_RATIOS)
        # At a prior of a half the biases are 0: the alignment has its own.
        self.features = RetinaNetClassificationHead(
            channels, count, channels, prior_probability=0.5, norm_layer=TowerNorm
        )
        self.boxes = RetinaNetRegressionHead(channels, count, norm_layer=TowerNorm)
        self.anchors_a_position = count
        self.add_alignment(channels, text_dim, log_scale)

    def forward(
        self, levels: list[Tensor], text_BLC: Tensor, mask_BL: Tensor | None = None, truth: Truth | None = None
    ) -> RetinaNetOutput:
        """See `DetectionHead`; neither mask nor truth are needed."""
        logits_BNL = self.align(self.features(levels), text_BLC)
        deltas_BN4 = widened(self.boxes(levels))
        anchors = self.anchors(image_list(levels), levels)
        boxes = self.boxes.box_coder.decode(deltas_BN4.flatten(0, 1), anchors).view_as(deltas_BN4)
        level_lengths = [level.shape[-2] * level.shape[-1] * self.anchors_a_position for level in levels]
        return RetinaNetOutput(boxes, logits_BNL, anchors[0], level_lengths)
