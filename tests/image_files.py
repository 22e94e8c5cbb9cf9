"""Encoded pictures for tests."""

import io

import numpy as np
from PIL import Image


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(colour=(200, 30, 40), size=(40, 30)) -> bytes:
    return encoded(Image.new("RGB", size, colour), "JPEG", quality=95)


def photograph(width: int = 120, height: int = 80) -> Image.Image:
    """Smooth colours that tell the corners apart."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (255 * x / width, 255 * y / height, 128 + 0 * x)
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))
