"""The head of the detector: boxes, and the alignment of every anchor with every token of the text.

Shapes: B batch, N anchors of all levels (finest first, row-major), C channels, L text length, H and W sides of a level.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.detector.anchors import STRIDES
from fiber_cli.model.detector.deep_fusion import DeepFusion
from fiber_cli.model.detector.dyhead import DyBlock
from fiber_cli.model.init import zero_bias
from fiber_cli.model.module_sequence import ModuleSequence


class HeadOutput(NamedTuple):
    """Float32. `deltas` (B, N, 4) relative to the anchors; `centerness` (B, N) and `logits` (B, N, L) before the
    sigmoid; `sizes`: (height, width) of the levels, finest first."""

    deltas: Tensor
    centerness: Tensor
    logits: Tensor
    sizes: tuple[tuple[int, int], ...]


class TokenHead(nn.Module):
    """DynamicHead tower, then box, centerness and the alignment of every anchor with every token.

    fusions: what stands before each block of the tower; none, or one for each.
    """

    def __init__(
        self, channels: int, blocks: int, text_dim: int, log_scale: float = 0.0, fusions: Sequence[DeepFusion] = ()
    ):
        super().__init__()
        self.tower = nn.ModuleList(DyBlock(channels) for _ in range(blocks))
        self.fusions: ModuleSequence[DeepFusion] = ModuleSequence(fusions)
        self.box = nn.Conv2d(channels, 4, 1)
        self.centerness = nn.Conv2d(channels, 1, 1)
        self.scales = nn.ParameterList(torch.ones(1) for _ in STRIDES)
        self.text_proj = nn.Linear(text_dim, channels)
        self.log_scale = nn.Parameter(torch.full((1,), log_scale))
        self.bias_lang = nn.Parameter(torch.zeros(text_dim))
        #: Every token starts with a probability of 0.01.
        self.bias0 = nn.Parameter(torch.full((1,), -math.log(99)))
        for conv in (self.box, self.centerness):
            nn.init.normal_(conv.weight, std=0.01)
            zero_bias(conv)

    def forward(self, levels: list[Tensor], text_BLC: Tensor, mask_BL: Tensor | None = None) -> HeadOutput:
        """levels: (B, C, H_l, W_l) each; text_BLC: text states, 0 at padding positions; mask: bool, True for real
        tokens, needed where text and image are fused."""
        for number, block in enumerate(self.tower):
            if self.fusions:
                assert mask_BL is not None, "fusion needs the text's mask"
                levels, text_BLC = self.fusions[number](levels, text_BLC, mask_BL)
                text_BLC = text_BLC * mask_BL[:, :, None]
            levels = block(levels)
        logits_BNL = self._align(flatten_levels(levels), text_BLC)
        delta_maps, centerness_maps, sizes = [], [], []
        for level, scale in zip(levels, self.scales, strict=True):
            delta_maps.append(scale * self.box(level))
            centerness_maps.append(self.centerness(level))
            height, width = level.shape[-2:]
            sizes.append((height, width))
        dtype = torch.promote_types(logits_BNL.dtype, torch.float32)
        deltas = flatten_levels(delta_maps).to(dtype)
        centerness = flatten_levels(centerness_maps).squeeze(-1).to(dtype)
        logits = logits_BNL.to(dtype).clamp(-50000, 50000)
        return HeadOutput(deltas, centerness, logits, tuple(sizes))

    def _align(self, anchors_BNC: Tensor, text_BLC: Tensor) -> Tensor:
        """Logits (B, N, L)."""
        embedded = F.normalize(text_BLC, dim=-1)
        tokens_BLC = self.text_proj(embedded / 2) * torch.exp(-self.log_scale)
        bias_BL = embedded @ self.bias_lang + self.bias0
        return anchors_BNC @ tokens_BLC.transpose(1, 2) + bias_BL[:, None]


def flatten_levels(levels: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, H_l, W_l) -> (B, N, C)."""
    flat = [level.flatten(2).transpose(1, 2) for level in levels]
    return torch.cat(flat, 1)
