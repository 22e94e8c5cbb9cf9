"""Image files to RGB pictures: the only place where that happens."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fiber_cli.data.source import MAX_PIXELS, BadSample

#: What photographs come in. Pillow has readers for many stranger formats, one of which starts ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

# Pillow warns at its limit and raises only at twice that.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def open_image(file: str | Path | bytes, max_pixels: int = MAX_PIXELS, *, at_least: int = 0) -> Image.Image:
    """Decode a path or an encoded image to an RGB picture, upright by its EXIF orientation.

    The header's size is checked against `max_pixels` before any pixel is decoded. Transparency is laid on
    white; 16-bit greyscale keeps its upper 8 bits; of an animation the first frame is taken. `at_least` > 0
    lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, several times faster, with both sides still at
    least that many pixels. Raises `BadSample` for anything that is not a whole, readable image.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels
    content = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        with Image.open(content, formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            if at_least:
                image.draft(None, (at_least, at_least))
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except FileNotFoundError:
        raise BadSample(f"no such file: {file!s}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadSample(f"more than {max_pixels:,} pixels by its header (the limit is max_pixels)") from None
    except Exception as error:  # damaged files make decoders raise almost anything
        raise BadSample(f"not a readable image: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB, transparency laid on white; `BadSample` for pixels of an unknown range."""
    image.load()
    if image.mode == "F":
        raise BadSample("floating-point pixels, whose range is unknown")
    if image.mode.startswith("I"):
        image = _upper_bits(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _upper_bits(image: Image.Image) -> Image.Image:
    """16-bit greyscale as 8-bit greyscale."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise BadSample("32-bit pixels, whose range is unknown")
    upper = values.astype(np.uint16) >> 8
    return Image.fromarray(upper.astype(np.uint8))
