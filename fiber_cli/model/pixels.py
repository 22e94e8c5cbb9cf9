"""Pixels as the network takes them: normalised by ImageNet statistics, in batches whose sides all maps divide evenly.

Shapes: B images, H and W sides of the batch, h and w sides of one image; sizes are (height, width) in pixels.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from fiber_cli.model.kept import constant

#: The maps of all levels halve evenly on sides that are multiples of this.
DIVISOR = 32
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Side = TypeVar("Side", int, Tensor)


def normalize(pixels: Tensor) -> Tensor:
    """uint8, or float in 0 to 255, (..., 3, H, W) RGB to float32 of the same shape: [0, 1], then ImageNet mean and
    deviation."""
    pixels = pixels.float() / 255
    mean = constant(MEAN, pixels.dtype, pixels.device).view(3, 1, 1)
    std = constant(STD, pixels.dtype, pixels.device).view(3, 1, 1)
    return (pixels - mean) / std


def padded(side: Side) -> Side:
    """A side of an image, or an int64 tensor of them, up to the next multiple of `DIVISOR`."""
    return -(-side // DIVISOR) * DIVISOR


def pad_batch(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """uint8 (3, h, w) of any sizes to (uint8 (B, 3, H, W), true sizes int64 (B, 2) as (h, w)).

    Each picture lies at the top left; H and W are the largest sides, up to a multiple of `DIVISOR`. The padding is 0
    here, and must be set to 0 again once the pixels are normalised.
    """
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = padded(sizes.amax(0)).tolist()
    batch = torch.zeros((len(images), 3, height, width), dtype=torch.uint8)
    for row, image in zip(batch, images, strict=True):
        _, h, w = image.shape
        row[:, :h, :w] = image
    return batch, sizes
