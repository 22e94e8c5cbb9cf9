"""Pictures to pixels: the evaluation resize and the training augmentation.

Both transforms are called with a picture, a generator and whether mirroring is allowed, and give uint8
(3, H, W) RGB. All chance comes from the generator.
"""

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from fiber_cli.data.augment import rand_augment

_CROP_ATTEMPTS = 10


class Transform(Protocol):
    """An RGB picture to uint8 (3, H, W); `flip=False` forbids to mirror it."""

    def __call__(self, image: Image.Image, rng: np.random.Generator, flip: bool) -> torch.Tensor: ...


def resize(image: Image.Image, height: int, width: int) -> torch.Tensor:
    """An RGB picture as uint8 (3, height, width): bicubic with antialiasing, as Pillow's but for one grey
    level here and there, in less than half of the time."""
    return _resize_pixels(np.array(image), height, width)


def _resize_pixels(pixels_HWC: np.ndarray, height: int, width: int) -> torch.Tensor:
    pixels = torch.from_numpy(pixels_HWC).permute(2, 0, 1)
    return interpolate(pixels[None], (height, width), mode="bicubic", antialias=True)[0]


class EvalTransform:
    """Plain bicubic resize to `size` (a side or (height, width)); the aspect ratio is not kept.

    FIBER evaluates and pre-trains so. Draws nothing.
    """

    def __init__(self, size: int | tuple[int, int]):
        self.height, self.width = _sides(size)

    def __call__(self, image: Image.Image, rng: np.random.Generator | None = None, flip: bool = False) -> torch.Tensor:
        return resize(image, self.height, self.width)


class TrainTransform:
    """Random resized crop (0.5 to 1 of the area, bicubic), mirroring with probability 1/2, RandAugment(2, 7).

    `flip=False` forbids the mirroring, for captions that speak of left and right.
    """

    def __init__(self, size: int | tuple[int, int]):
        self.height, self.width = _sides(size)

    def __call__(self, image: Image.Image, rng: np.random.Generator, flip: bool = True) -> torch.Tensor:
        left, top, right, bottom = random_crop(image.size, rng)
        # Pillow's own `crop` refuses large pictures by a global limit, whatever max_pixels allows.
        crop = np.array(np.asarray(image)[top:bottom, left:right])
        pixels = _resize_pixels(crop, self.height, self.width)
        if rng.random() < 0.5 and flip:
            pixels = pixels.flip(2)
        return rand_augment(pixels, rng)


#: `data.augment` → the transform for pictures of a size.
TRANSFORMS: dict[str, Callable[[int], Transform]] = {"none": EvalTransform, "randaugment": TrainTransform}


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def random_crop(size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box (left, top, right, bottom) in pixels, inside a picture of `size` (width, height).

    Its share of the area is uniform in 1/2 to 1, its aspect ratio log-uniform in 3:4 to 4:3; after ten boxes
    that do not fit, the largest central box of an allowed ratio (torchvision's rule).
    """
    width, height = size
    for _ in range(_CROP_ATTEMPTS):
        area = rng.uniform(0.5, 1) * width * height
        ratio = math.exp(rng.uniform(-math.log(4 / 3), math.log(4 / 3)))
        crop_width = round(math.sqrt(area * ratio))
        crop_height = round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(rng.integers(width - crop_width + 1))
            top = int(rng.integers(height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    crop_width = max(1, min(width, round(height * 4 / 3)))
    crop_height = max(1, min(height, round(width * 4 / 3)))
    left = (width - crop_width) // 2
    top = (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height
