"""The published head: ATSS on DynamicHead, one anchor a position, with a centerness beside each box.

Shapes: B batch, N anchors of all levels (finest first, row-major), C channels, L text length, H and W sides of a level.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fiber_cli.model.detector.anchors import STRIDES, decode_boxes, make_anchors
from fiber_cli.model.detector.deep_fusion import DeepFusion
from fiber_cli.model.detector.detection_head import (
    BOX_WEIGHT,
    DetectionHead,
    LossSum,
    Regions,
    Truth,
    flatten_levels,
)
from fiber_cli.model.detector.dyhead import DyBlock
from fiber_cli.model.detector.losses import loss_sums
from fiber_cli.model.init import zero_bias
from fiber_cli.model.module_sequence import ModuleSequence


class HeadOutput(NamedTuple):
    """Float32. `deltas` (B, N, 4) relative to the anchors; `centerness` (B, N) and `logits` (B, N, L) before the
    sigmoid; `sizes`: (height, width) of the levels, finest first."""

    deltas: Tensor
    centerness: Tensor
    logits: Tensor
    sizes: tuple[tuple[int, int], ...]

    @property
    def level_lengths(self) -> list[int]:
        """How many anchors each level has."""
        return [height * width for height, width in self.sizes]

    def regions(self, image: int) -> Regions:
        """See `DetectionOutput`."""
        boxes = decode_boxes(self.deltas[image], make_anchors(self.sizes, self.deltas))
        return Regions(boxes, self.logits[image], self.centerness[image].sigmoid(), self.level_lengths)

    def loss_sums(self, truth: Truth) -> Mapping[str, LossSum]:
        """See `DetectionOutput`."""
        sums = loss_sums(self, truth)
        positives = sums.positives.to(sums.centerness_target)
        return {
            "token_loss": LossSum(sums.token, positives),
            # Without any positive the sum is 0, and so is its quotient.
            "reg_loss": LossSum(sums.box, sums.centerness_target, least=1e-6, weight=BOX_WEIGHT),
            "centerness_loss": LossSum(sums.centerness, positives),
        }


class TokenHead(DetectionHead):
    """DynamicHead tower, then box, centerness and the alignment of every anchor with every token.

    fusions: what stands before each block of the tower; none, or one for each.
    """

    OWN: ClassVar[tuple[str, ...]] = ("tower.", "fusions.", "box.", "centerness.", "scales.")

    def __init__(
        self, channels: int, blocks: int, text_dim: int, log_scale: float = 0.0, fusions: Sequence[DeepFusion] = ()
    ):
        super().__init__()
        self.tower = nn.ModuleList(DyBlock(channels) for _ in range(blocks))
        self.fusions: ModuleSequence[DeepFusion] = ModuleSequence(fusions)
        self.box = nn.Conv2d(channels, 4, 1)
        self.centerness = nn.Conv2d(channels, 1, 1)
        self.scales = nn.ParameterList(torch.ones(1) for _ in STRIDES)
        self.add_alignment(channels, text_dim, log_scale)
        for conv in (self.box, self.centerness):
            nn.init.normal_(conv.weight, std=0.01)
            zero_bias(conv)

    def forward(
        self, levels: list[Tensor], text_BLC: Tensor, mask_BL: Tensor | None = None, truth: Truth | None = None
    ) -> HeadOutput:
        """See `DetectionHead`; the mask is needed where text and image are fused, and the truth is not."""
        for number, block in enumerate(self.tower):
            if self.fusions:
                assert mask_BL is not None, "fusion needs the text's mask"
                levels, text_BLC = self.fusions[number](levels, text_BLC, mask_BL)
                text_BLC = text_BLC * mask_BL[:, :, None]
            levels = block(levels)
        sizes = tuple((level.shape[-2], level.shape[-1]) for level in levels)
        flat_BNC = flatten_levels(levels)
        logits_BNL = self.align(flat_BNC, text_BLC)
        # All levels as one map, so that its 1 x 1 convolutions are one each.
        map_BCN1 = flat_BNC.mT[..., None]
        scale_N = torch.cat([scale.expand(h * w) for scale, (h, w) in zip(self.scales, sizes, strict=True)])
        dtype = logits_BNL.dtype
        deltas_BN4 = (scale_N * self.box(map_BCN1).squeeze(3)).mT.to(dtype)
        centerness_BN = self.centerness(map_BCN1).flatten(1).to(dtype)
        return HeadOutput(deltas_BN4, centerness_BN, logits_BNL, sizes)
