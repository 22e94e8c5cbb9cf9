"""Pictures to pixels: the evaluation resize and the training augmentation.

Both transforms are called with a picture, a generator and whether mirroring is allowed, and give uint8
(3, H, W) RGB. All chance comes from the generator.
"""

import math

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch.nn.functional import interpolate

_GREY = (128, 128, 128)


def resize(image: Image.Image, height: int, width: int) -> torch.Tensor:
    """An RGB picture as uint8 (3, height, width): bicubic with antialiasing, as Pillow's but for one grey
    level here and there, in less than half of the time."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return interpolate(pixels[None], (height, width), mode="bicubic", antialias=True)[0]


class EvalTransform:
    """Plain bicubic resize to `size` (a side or (height, width)); the aspect ratio is not kept.

    FIBER evaluates and pre-trains so. Draws nothing.
    """

    def __init__(self, size: int | tuple[int, int]):
        self.height, self.width = (size, size) if isinstance(size, int) else size

    def __call__(self, image: Image.Image, rng: np.random.Generator | None = None, flip: bool = False) -> torch.Tensor:
        return resize(image, self.height, self.width)


class TrainTransform(EvalTransform):
    """Random resized crop (0.5 to 1 of the area, bicubic), mirroring with probability 1/2, RandAugment(2, 7).

    `flip=False` forbids the mirroring, for captions that speak of left and right.
    """

    def __call__(self, image: Image.Image, rng: np.random.Generator, flip: bool = True) -> torch.Tensor:
        pixels = resize(image.crop(random_crop(image.size, rng)), self.height, self.width)
        if rng.random() < 0.5 and flip:
            pixels = pixels.flip(2)
        return rand_augment(pixels, rng)


def random_crop(size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box (left, top, right, bottom) in pixels, inside a picture of `size` (width, height).

    Its share of the area is uniform in 1/2 to 1, its aspect ratio log-uniform in 3:4 to 4:3; after ten boxes
    that do not fit, the largest central box of an allowed ratio (torchvision's rule).
    """
    width, height = size
    for _ in range(10):
        area = rng.uniform(0.5, 1) * width * height
        ratio = math.exp(rng.uniform(-math.log(4 / 3), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = max(1, min(width, round(height * 4 / 3))), max(1, min(height, round(width * 4 / 3)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def rand_augment(pixels: torch.Tensor, rng: np.random.Generator, count: int = 2, magnitude: float = 7) -> torch.Tensor:
    """RandAugment of uint8 (3, H, W): `count` of ten operations, drawn with replacement, each then applied
    with probability 1/2.

    Identity, auto-contrast, equalize; brightness and sharpness by the factor 0.1 + 1.8 m; shear along x or y
    by 0.3 m; translation along x or y by m / 38.4 of the side (10 m pixels at 384); rotation by 30 m degrees.
    Here m = magnitude / 10; the last five go either way, about the centre, uncovered pixels grey (128).
    Ranges and probability are the ones in use with this list of operations since ALBEF, except that the
    translation grows with the picture.
    """
    chosen = rng.integers(len(_OPERATIONS), size=count)[rng.random(count) < 0.5]
    if not chosen.any():  # 0 is identity
        return pixels
    image = Image.merge("RGB", [Image.fromarray(channel) for channel in pixels.numpy()])
    for op in chosen:
        image = _OPERATIONS[op](image, magnitude / 10, rng.choice((-1, 1)) * magnitude / 10)
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in image.split()]))


def _affine(image: Image.Image, xy: float = 0, yx: float = 0, dx: float = 0, dy: float = 0) -> Image.Image:
    """Pixel (x, y) of the result is (x + xy·y' + dx, y + yx·x' + dy) of `image`; y', x' from the centre."""
    matrix = (1, xy, dx - xy * image.height / 2, yx, 1, dy - yx * image.width / 2)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_GREY)


# Each takes the picture, m and m with a random sign.
_OPERATIONS = (
    lambda image, m, s: image,
    lambda image, m, s: ImageOps.autocontrast(image),
    lambda image, m, s: ImageOps.equalize(image),
    lambda image, m, s: ImageEnhance.Brightness(image).enhance(0.1 + 1.8 * m),
    lambda image, m, s: ImageEnhance.Sharpness(image).enhance(0.1 + 1.8 * m),
    lambda image, m, s: _affine(image, xy=0.3 * s),
    lambda image, m, s: _affine(image, yx=0.3 * s),
    lambda image, m, s: _affine(image, dx=s * image.width / 38.4),
    lambda image, m, s: _affine(image, dy=s * image.height / 38.4),
    lambda image, m, s: image.rotate(30 * s, Image.Resampling.BILINEAR, fillcolor=_GREY),
)
