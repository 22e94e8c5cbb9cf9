"""Feature pyramid over the last three image stages: five levels, strides 8 to 128, one width."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.init import zero_bias


def drop_block(x_BCHW: Tensor, rate: float, block: int = 3) -> Tensor:
    """Zero `block` x `block` squares, shared by all channels, and scale what is left up to the same sum of weights.
    A position starts a square with chance `rate / block**2`."""
    chances = torch.rand_like(x_BCHW[:, :1], dtype=torch.float32)
    starts = (chances < rate / block**2).float()
    remaining = 1 - F.max_pool2d(starts, block, 1, block // 2)
    scale = remaining.numel() / remaining.sum().clamp(min=1)
    return x_BCHW * (remaining * scale).to(x_BCHW.dtype)


def _halved(x_BCHW: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 3x3 convolution of stride 2 with its padding."""
    if x_BCHW.shape[-1] > 1:
        return conv(x_BCHW)
    # Of maps that are one position wide oneDNN leaves gradients of bfloat16 weights as the memory was, unless the
    # padding is there already (torch 2.14 on CPUs).
    return F.conv2d(F.pad(x_BCHW, (1, 1, 1, 1)), conv.weight, conv.bias, conv.stride)


class Fpn(nn.Module):
    """`dims` are the channels of the three stages, finest first; `drop` is DropBlock's rate, in training."""

    def __init__(self, dims: Sequence[int], channels: int, drop: float):
        super().__init__()
        self.drop = drop
        self.inner = nn.ModuleList(nn.Conv2d(dim, channels, 1) for dim in dims)
        self.layer = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in dims)
        self.p6 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        for conv in (*self.inner, *self.layer, self.p6, self.p7):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            zero_bias(conv)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Three maps (B, C_s, H_s, W_s) -> P3 to P7, each (B, channels, H_l, W_l)."""
        inner = self.inner[-1](maps[-1])
        levels = [self.layer[-1](inner)]
        for stage in reversed(range(len(maps) - 1)):
            lateral = self.inner[stage](maps[stage])
            inner = lateral + F.interpolate(inner, lateral.shape[-2:], mode="nearest")
            level = self.layer[stage](self._drop(inner))
            levels.insert(0, level)
        p6 = _halved(levels[-1], self.p6)
        p7 = _halved(F.relu(p6), self.p7)
        return [*levels, p6, p7]

    def _drop(self, x: Tensor) -> Tensor:
        return drop_block(x, self.drop) if self.training and self.drop else x
