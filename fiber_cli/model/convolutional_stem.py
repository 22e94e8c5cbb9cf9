"""Convolutions in place of Swin's patch embedding ("Early Convolutions Help Transformers See Better", NeurIPS 2021).

A linear map of whole patches sees a shape at each offset as something new; small towers that are trained from nothing
take many times longer to tell shapes apart behind it.
Shapes: B batch, C channels, H and W sides in pixels, P patch.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.config import STEM_GROUP
from fiber_cli.model.norm import LayerNorm


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // STEM_GROUP, channels)


class ResidualConvolutions(nn.Module):
    """Two 3 x 3 convolutions that keep the size, beside the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = _norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        inner = self.conv1(F.gelu(self.norm1(x_BCHW)))
        return x_BCHW + self.conv2(F.gelu(self.norm2(inner)))


class ConvolutionalStem(nn.Module):
    """Halvings by 3 x 3 convolutions down to one token for a patch of `patch` pixels, a power of two.

    Each doubles the channels, and all but the first are followed by `ResidualConvolutions`. Norms are over groups of
    channels and the whole map: over channels alone they raise a plain ground to the level of what lies on it, and
    shapes are not learned.
    """

    def __init__(self, patch: int, channels: int):
        super().__init__()
        self.patch = patch
        width = 2 * channels // patch
        self.first = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        layers: list[nn.Module] = []
        while width < channels:
            layers += [
                _norm(width),
                nn.GELU(),
                nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
                ResidualConvolutions(2 * width),
            ]
            width *= 2
        self.layers = nn.Sequential(*layers)
        self.norm = LayerNorm(width)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """(B, 3, H, W), sides of any number of pixels -> tokens (B, ceil(H / P), ceil(W / P), C)."""
        height, width = pixels_B3HW.shape[-2:]
        padded = F.pad(pixels_B3HW, (0, -width % self.patch, 0, -height % self.patch))
        x_BCHW = self.layers(self.first(padded))
        tokens: Tensor = self.norm(x_BCHW.permute(0, 2, 3, 1))
        return tokens
