"""DynamicHead: blocks that look across neighbouring pyramid levels by deformable convolution.

Each block is scale-aware (a gate for every level's contribution), spatial-aware (learned offsets) and task-aware
(a piecewise linear activation that the content chooses). Shapes: B batch, C channels, H and W sides of a level.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

TAPS = 9
#: Places of the output whose taps go through a CPU's cache together.
PLACES = 1024


def first_elements(x_BKHW: Tensor, size: tuple[int, int]) -> Tensor:
    """The first K * h * w elements of every sample's memory, read as (B, K, h, w).

    So does the published operator read offsets that belong to a finer level than its output; the published weights
    were trained with it.
    """
    B, K = x_BKHW.shape[:2]
    return x_BKHW.flatten(1)[:, : K * size[0] * size[1]].view(B, K, *size)


def deform_conv_by_rows(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, mask: Tensor
) -> Tensor:
    """torchvision's `deform_conv2d` for 3x3 kernels, in plain PyTorch: every tap is a weighted sum of four rows of
    channels, which is what `embedding_bag` adds up on all cores. Three times as fast on a CPU as the operator."""
    B, C, H, W = x.shape
    h, w = offset.shape[-2:]
    row, column, tap = (torch.arange(n, device=x.device, dtype=x.dtype) for n in (h, w, 3))
    row = (stride * row - padding)[:, None, None, None] + tap[:, None]
    column = (stride * column - padding)[:, None, None] + tap
    place = torch.stack(torch.broadcast_tensors(row, column), -1) + offset.permute(0, 2, 3, 1).view(B, h, w, 3, 3, 2)
    low = place.detach().floor()
    share = torch.stack([1 - (place - low), place - low])
    corner = torch.stack([low, low + 1]).long()
    side = torch.tensor([H, W], device=x.device)
    share = share * ((corner >= 0) & (corner < side))
    corner = torch.minimum(corner.clamp(min=0), side - 1)
    image = torch.arange(B, device=x.device).view(B, 1, 1, 1, 1) * H
    rows = [(image + corner[i, ..., 0]) * W + corner[j, ..., 1] for i in (0, 1) for j in (0, 1)]
    shares = [share[i, ..., 0] * share[j, ..., 1] for i in (0, 1) for j in (0, 1)]
    shares = torch.stack(shares, -1) * mask.permute(0, 2, 3, 1).view(B, h, w, 3, 3, 1)
    table, kernel = x.permute(0, 2, 3, 1).reshape(-1, C), weight.permute(0, 2, 3, 1).flatten(1)

    def convolve(rows: Tensor, shares: Tensor) -> Tensor:
        taps = F.embedding_bag(rows, table, mode="sum", per_sample_weights=shares)
        return F.linear(taps.view(-1, TAPS * C), kernel, bias)

    # With a gradient all places go together: each part's gradient would be as large as the table.
    part = TAPS * (B * h * w if torch.is_grad_enabled() else PLACES)
    parts = zip(torch.stack(rows, -1).view(-1, 4).split(part), shares.view(-1, 4).split(part))
    return torch.cat([convolve(*each) for each in parts]).view(B, h, w, -1).permute(0, 3, 1, 2)


class DeformConv(nn.Module):
    """Modulated deformable 3x3 convolution and GroupNorm."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        bound = (TAPS * channels) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.norm = nn.GroupNorm(16, channels)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """offset: (B, 18, h, w), (dy, dx) per tap in row-major order; mask: (B, 9, h, w); h, w: the output's sides.
        In the weights' precision also under autocast, as published."""
        convolve = deform_conv_by_rows if x.device.type == "cpu" else deform_conv2d
        with torch.autocast(x.device.type, enabled=False):
            x, offset, mask = (t.to(self.weight.dtype) for t in (x, offset, mask))
            return self.norm(convolve(x, offset, self.weight, self.bias, self.stride, padding=1, mask=mask))


class DyRelu(nn.Module):
    """max of two lines per channel, whose slopes and intercepts follow from the map's mean."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // 4)
        self.fc2 = nn.Linear(channels // 4, 4 * channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = F.hardsigmoid(self.fc2(F.relu(self.fc1(x_BCHW.mean((2, 3)))))) - 0.5
        a1, b1, a2, b2 = y[:, :, None, None].chunk(4, 1)
        return torch.maximum(torch.addcmul(b1, x_BCHW, 2 * a1 + 1), torch.addcmul(b2, x_BCHW, 2 * a2))


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
        nn.init.normal_(self.gate.weight, std=0.01)
        nn.init.zeros_(self.gate.bias)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Levels (B, C, H_l, W_l), finest first -> the same shapes."""
        return [self.relu(self._fuse(levels, i)) for i in range(len(levels))]

    def _fuse(self, levels: list[Tensor], i: int) -> Tensor:
        """Mean of the gated contributions of level i and its neighbours, all at the places that level i asks for."""
        x = levels[i]
        offset, mask = self.offset(x).split((2 * TAPS, TAPS), 1)
        mask = mask.sigmoid()
        branches = [self.same(x, offset, mask)]
        if i > 0:
            branches.append(self.finer(levels[i - 1], offset, mask))
        if i + 1 < len(levels):
            size = levels[i + 1].shape[-2:]
            coarse = self.coarser(levels[i + 1], first_elements(offset, size), first_elements(mask, size))
            branches.append(F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=True))
        gates = [F.hardsigmoid(F.relu(self.gate(b.mean((2, 3), keepdim=True)))) / len(branches) for b in branches]
        out = branches[0] * gates[0]
        for branch, gate in zip(branches[1:], gates[1:]):
            out = torch.addcmul(out, branch, gate)
        return out
