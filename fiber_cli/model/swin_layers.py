"""The plain parts of a Swin: patches to tokens, halving a map, MLP, and how its tables of biases start.

They compute what timm's modules do, by the same names and with the same random numbers; timm takes longer to import,
torchvision with it, than a small checkpoint takes to find something in a picture.
Shapes: B batch, C channels, H and W sides of a map or of an image.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.linear import Linear
from fiber_cli.model.norm import LayerNorm


class PatchEmbed(nn.Module):
    """A linear map of every patch of `patch` x `patch` pixels, normalised."""

    def __init__(self, patch: int, channels: int):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(3, channels, patch, stride=patch)
        self.norm = LayerNorm(channels)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """(B, 3, H, W), sides of any number of pixels -> tokens (B, ceil(H / patch), ceil(W / patch), C). Patches that
        reach beyond the image see zeros there."""
        height, width = pixels_B3HW.shape[-2:]
        padded = F.pad(pixels_B3HW, (0, -width % self.patch, 0, -height % self.patch))
        tokens: Tensor = self.norm(self.proj(padded).permute(0, 2, 3, 1))
        return tokens


class PatchMerging(nn.Module):
    """Halves a map: the channels of 2 x 2 neighbours side by side, normalised and mapped to `out_channels`."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.norm = LayerNorm(4 * channels)
        self.reduction = Linear(4 * channels, out_channels, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), out_channels). Of odd sides the neighbours beyond are zeros."""
        B, H, W, C = x_BHWC.shape
        padded = F.pad(x_BHWC, (0, 0, 0, W % 2, 0, H % 2))
        down, across = (H + 1) // 2, (W + 1) // 2
        grid = padded.reshape(B, down, 2, across, 2, C)
        # Column before row: the upper left, the lower left, the upper right and the lower right neighbour.
        neighbours = grid.permute(0, 1, 3, 4, 2, 5).flatten(3)
        merged: Tensor = self.reduction(self.norm(neighbours))
        return merged


class Mlp(nn.Module):
    """Two linear maps of every token, GELU between them."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


def truncated_normal(*shape: int, std: float) -> Tensor:
    """Normal values of mean 0 and deviation `std`, none beyond 2; by the inverse of the distribution function, with one
    random number each, where torch's own way depends on its version."""
    values = torch.empty(shape)
    within = math.erf(2 / std / math.sqrt(2))  # the share of the distribution that lies between -2 and 2
    values.uniform_(-within, within)
    return values.erfinv_().mul_(std * math.sqrt(2)).clamp_(-2, 2)
