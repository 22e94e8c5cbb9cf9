"""RandAugment, as in use for vision-language pre-training since ALBEF.

An operation takes the picture, m, and m with a random sign; m is the magnitude in tenths.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

_GREY = (128, 128, 128)
#: A translation of magnitude 10 moves a picture by its side over this: by 10 pixels at 384.
_TRANSLATION = 38.4

Operation = Callable[[Image.Image, float, float], Image.Image]


def rand_augment(pixels: torch.Tensor, rng: np.random.Generator, count: int = 2, magnitude: float = 7) -> torch.Tensor:
    """RandAugment of uint8 (3, H, W): `count` of ten operations, drawn with replacement, each then applied
    with probability 1/2.

    Identity, auto-contrast, equalize; brightness and sharpness by the factor 0.1 + 1.8 m; shear along x or y
    by 0.3 m; translation along x or y by m / 38.4 of the side (10 m pixels at 384); rotation by 30 m degrees.
    Here m = magnitude / 10; the last five go either way, about the centre, uncovered pixels grey (128).
    Ranges and probability are the ones in use with this list of operations since ALBEF, except that the
    translation grows with the picture.
    """
    drawn = rng.integers(len(OPERATIONS), size=count)
    chosen = drawn[rng.random(count) < 0.5]
    if not chosen.any():  # 0 is identity
        return pixels
    m = magnitude / 10
    image = Image.merge("RGB", [Image.fromarray(channel) for channel in pixels.numpy()])
    for number in chosen:
        sign = rng.choice((-1, 1))
        image = OPERATIONS[number](image, m, sign * m)
    channels = [np.asarray(channel) for channel in image.split()]
    return torch.from_numpy(np.stack(channels))


def identity(image: Image.Image, m: float, signed: float) -> Image.Image:
    return image


def auto_contrast(image: Image.Image, m: float, signed: float) -> Image.Image:
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image, m: float, signed: float) -> Image.Image:
    return ImageOps.equalize(image)


def brightness(image: Image.Image, m: float, signed: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(0.1 + 1.8 * m)


def sharpness(image: Image.Image, m: float, signed: float) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(0.1 + 1.8 * m)


def shear_x(image: Image.Image, m: float, signed: float) -> Image.Image:
    return _affine(image, xy=0.3 * signed)


def shear_y(image: Image.Image, m: float, signed: float) -> Image.Image:
    return _affine(image, yx=0.3 * signed)


def translate_x(image: Image.Image, m: float, signed: float) -> Image.Image:
    return _affine(image, dx=signed * image.width / _TRANSLATION)


def translate_y(image: Image.Image, m: float, signed: float) -> Image.Image:
    return _affine(image, dy=signed * image.height / _TRANSLATION)


def rotate(image: Image.Image, m: float, signed: float) -> Image.Image:
    return image.rotate(30 * signed, Image.Resampling.BILINEAR, fillcolor=_GREY)


def _affine(image: Image.Image, xy: float = 0, yx: float = 0, dx: float = 0, dy: float = 0) -> Image.Image:
    """Pixel (x, y) of the result is (x + xy·y' + dx, y + yx·x' + dy) of `image`; y', x' from the centre."""
    first_row = (1, xy, dx - xy * image.height / 2)
    second_row = (yx, 1, dy - yx * image.width / 2)
    return image.transform(
        image.size, Image.Transform.AFFINE, first_row + second_row, Image.Resampling.BILINEAR, fillcolor=_GREY
    )


OPERATIONS: tuple[Operation, ...] = (
    identity,
    auto_contrast,
    equalize,
    brightness,
    sharpness,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    rotate,
)
