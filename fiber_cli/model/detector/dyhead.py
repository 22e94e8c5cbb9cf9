"""DynamicHead: blocks that look across neighbouring pyramid levels by deformable convolution.

Each block is scale-aware (a gate for every level's contribution), spatial-aware (learned offsets) and task-aware
(a piecewise linear activation that the content chooses). Shapes: B batch, C channels, H and W sides of a level.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.detector.deform_conv import TAPS, deform_conv, deform_conv_by_sampling
from fiber_cli.model.init import zero_bias
from fiber_cli.model.linear import Linear


def first_elements(x_BKHW: Tensor, size: Sequence[int]) -> Tensor:
    """The first K * h * w elements of every sample's memory, read as (B, K, h, w) for `size` (h, w).

    So does the published operator read offsets that belong to a finer level than its output; the published weights
    were trained with it.
    """
    B, K = x_BKHW.shape[:2]
    h, w = size
    elements = x_BKHW.flatten(1)[:, : K * h * w]
    return elements.view(B, K, h, w)


class _Norm(nn.GroupNorm):
    """In the precision of what comes."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The same shape and type."""
        weight, bias = self.weight.to(x_BCHW.dtype), self.bias.to(x_BCHW.dtype)
        return F.group_norm(x_BCHW, self.num_groups, weight, bias, self.eps)


class DeformConv(nn.Module):
    """Modulated deformable 3x3 convolution and GroupNorm."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        bound = (TAPS * channels) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.norm = _Norm(16, channels)
        #: Whether the product keeps to the precision of autocast, which else is that of the weights, as published.
        self.in_low_precision = False

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """offset: (B, 18, h, w), (dy, dx) per tap in row-major order; mask: (B, 9, h, w); h, w: the output's sides.
        Where to sample is computed in the weights' precision also under autocast."""
        device = x.device.type
        dtype = self.weight.dtype
        product = None
        if self.in_low_precision and torch.is_autocast_enabled(device):
            product = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            x, offset, mask = x.to(dtype), offset.to(dtype), mask.to(dtype)
            if product is not None:
                out = deform_conv_by_sampling(x, offset, self.weight, self.bias, self.stride, 1, mask, product)
            else:
                out = deform_conv(x, offset, self.weight, self.bias, self.stride, 1, mask)
            normed: Tensor = self.norm(out)
            return normed


class DyRelu(nn.Module):
    """max of two lines per channel, whose slopes and intercepts follow from the map's mean."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = Linear(channels, channels // 4)
        self.fc2 = Linear(channels // 4, 4 * channels)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C, H_l, W_l) -> the same shapes. The lines of all come from one pass of their means: a GPU waits
        longer for the host to ask for such a small thing than it takes."""
        means_NBC = torch.stack([x_BCHW.mean((2, 3)) for x_BCHW in levels])
        hidden = F.relu(self.fc1(means_NBC))
        coefficients = F.hardsigmoid(self.fc2(hidden)) - 0.5
        slope1, intercept1, slope2, intercept2 = coefficients[..., None, None].chunk(4, 2)
        first = _lines(levels, 2 * slope1 + 1, intercept1)
        second = _lines(levels, 2 * slope2, intercept2)
        return list(map(_larger, first, second))


def _lines(levels: Sequence[Tensor], slopes_NBC11: Tensor, intercepts_NBC11: Tensor) -> list[Tensor]:
    """Of every map its own line."""
    lines = []
    for x, slope, intercept in zip(levels, slopes_NBC11.unbind(), intercepts_NBC11.unbind(), strict=True):
        lines.append(_plus_product(intercept, x, slope))
    return lines


# Gradients of torch.addcmul copy both factors, and those of torch.maximum are nine operations on whole maps.
def _plus_product(intercept: Tensor, x: Tensor, slope: Tensor) -> Tensor:
    """intercept + x * slope."""
    if torch.is_grad_enabled():
        return (x * slope).add_(intercept)
    return torch.addcmul(intercept.to(x.dtype), x, slope.to(x.dtype))


def _larger(a: Tensor, b: Tensor) -> Tensor:
    """The larger of both everywhere."""
    if torch.is_grad_enabled():
        return torch.where(a > b, a, b)
    return torch.maximum(a, b)


class DyBlock(nn.Module):
    """One block; its weights serve all levels."""

    def __init__(self, channels: int):
        super().__init__()
        self.coarser = DeformConv(channels, 1)
        self.same = DeformConv(channels, 1)
        self.finer = DeformConv(channels, 2)
        self.offset = nn.Conv2d(channels, 3 * TAPS, 3, padding=1)
        self.gate = nn.Conv2d(channels, 1, 1)
        self.relu = DyRelu(channels)
        #: Whether the maps lie position by position in memory, else channel by channel.
        self.channels_last = False
        nn.init.normal_(self.gate.weight, std=0.01)
        zero_bias(self.gate)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Levels (B, C, H_l, W_l), finest first -> the same shapes."""
        if self.channels_last:
            levels = [level.contiguous(memory_format=torch.channels_last) for level in levels]
        # As the convolutions sample it, once for all of them.
        sampled = [level.to(self.same.weight.dtype) for level in levels]
        branches = [self._branches(levels[i], sampled, i) for i in range(len(levels))]
        fused = []
        for of_level, gates in zip(branches, self._gates(branches), strict=True):
            fused.append(_weighted_sum(of_level, gates))
        return self.relu(fused)

    def _branches(self, x: Tensor, levels: Sequence[Tensor], i: int) -> list[Tensor]:
        """What level i, x, and its neighbours contribute, all at the positions that level i asks for."""
        offset, mask = self.offset(x).split((2 * TAPS, TAPS), 1)
        dtype = levels[i].dtype
        offset, mask = offset.to(dtype).contiguous(), mask.sigmoid().to(dtype)
        branches = [self.same(levels[i], offset, mask)]
        if i > 0:
            branches.append(self.finer(levels[i - 1], offset, mask))
        if i + 1 < len(levels):
            coarser = levels[i + 1]
            size = coarser.shape[-2:]
            coarse = self.coarser(coarser, first_elements(offset, size), first_elements(mask, size))
            branches.append(F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=True))
        return branches

    def _gates(self, branches: Sequence[Sequence[Tensor]]) -> list[Sequence[Tensor]]:
        """Of every branch of every level its share in the level's mean, (B, 1, 1, 1); all in one pass."""
        means = [branch.mean((2, 3), keepdim=True) for of_level in branches for branch in of_level]
        logits = self.gate(torch.cat(means))
        shares = F.hardsigmoid(F.relu(logits)).unflatten(0, (len(means), -1))
        counts = [len(of_level) for of_level in branches]
        gates: list[Sequence[Tensor]] = []
        for of_level, count in zip(shares.split(counts), counts, strict=True):
            gates.append((of_level / count).unbind())
        return gates


def _weighted_sum(branches: Sequence[Tensor], gates: Sequence[Tensor]) -> Tensor:
    total = branches[0] * gates[0]
    for branch, gate in zip(branches[1:], gates[1:], strict=True):
        total = _plus_product(total, branch, gate)
    return total
