"""Image files to RGB pictures: the only place where that happens."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, features
from PIL.ImageFile import ImageFile

from fiber_cli.data.image_formats import FORMATS, unread_format
from fiber_cli.data.source import MAX_PIXELS, BadSample

#: Enough of a file to tell its format, as Pillow's plug-ins expect it.
_PREFIX_BYTES = 16
#: Formats that Pillow may have been built without.
_OPTIONAL = {"WEBP": "webp", "AVIF": "avif"}
#: What plug-ins of Pillow raise for content of another format.
_OTHER_FORMAT = (SyntaxError, IndexError, TypeError, struct.error)


@cache
def readable_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow reads."""
    Image.init()
    readable = []
    for name in FORMATS:
        was_left_out = name in _OPTIONAL and not features.check(_OPTIONAL[name])
        if name in Image.OPEN and not was_left_out:
            readable.append(name)
    return tuple(readable)


def open_image(file: str | Path | bytes, max_pixels: int = MAX_PIXELS, *, at_least: int = 0) -> Image.Image:
    """Decode a path or an encoded image to an RGB picture, upright by its EXIF orientation.

    The header's size is checked against `max_pixels` before any pixel is decoded; Pillow's own limit and its filters of
    warnings are left alone. Transparency is laid on white; 16-bit greyscale keeps its upper 8 bits; of an animation the
    first frame is taken. `at_least` > 0 lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, several times faster,
    with both sides still at least that many pixels. Raises `BadSample` for what is not a whole, readable image.
    """
    try:
        with _stream(file) as stream, _undecoded(stream) as image:
            if image.width * image.height > max_pixels:
                raise BadSample(f"more than {max_pixels:,} pixels by its header (the limit is max_pixels)")
            if at_least:
                image.draft(None, (at_least, at_least))
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except BadSample:
        raise
    except FileNotFoundError:
        raise BadSample(f"no such file: {file!s}") from None
    except IsADirectoryError:
        raise BadSample("a folder; give the image files in it") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Some plug-ins of Pillow ask its limit themselves; what that is, is the user's affair.
        raise BadSample(f"{error} (the limit is PIL.Image.MAX_IMAGE_PIXELS)") from None
    except Exception as error:  # damaged files make decoders raise almost anything
        raise BadSample(f"not a readable image: {error}") from error


@contextmanager
def _stream(file: str | Path | bytes) -> Iterator[BinaryIO]:
    if isinstance(file, bytes):
        yield io.BytesIO(file)
        return
    with open(file, "rb") as opened:
        yield opened


def _undecoded(stream: BinaryIO) -> ImageFile:
    """`Image.open` without its check for decompression bombs, whose limit is global; `open_image` has its own."""
    prefix = stream.read(_PREFIX_BYTES)
    damaged = None
    for name in readable_formats():
        make, accept = Image.OPEN[name]
        if accept is not None and not accept(prefix):
            continue
        stream.seek(0)
        try:
            return make(stream, "")
        except _OTHER_FORMAT:
            damaged = name  # another plug-in may know it
    if damaged is not None:
        raise BadSample(f"not a readable image: a damaged {damaged} file")
    known = ", ".join(readable_formats())
    name_of_format = unread_format(prefix)
    if name_of_format is not None:
        raise BadSample(f"not a readable image: {name_of_format} is not among the formats read ({known})")
    raise BadSample(f"not a readable image: its format is none of {known}")


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
