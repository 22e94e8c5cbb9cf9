"""Image files to RGB pictures: the only place where that happens."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, features
from PIL.ImageFile import ImageFile

from fiber_cli.data.image_formats import FORMATS, unread_format
from fiber_cli.data.records import Size
from fiber_cli.data.source import MAX_PIXELS, BadSample
from fiber_cli.regular_files import check_regular

#: Enough of a file to tell its format, as Pillow's plug-ins expect it.
_PREFIX_BYTES = 16
#: Formats that Pillow may have been built without.
_OPTIONAL = {"WEBP": "webp", "AVIF": "avif"}
#: Pillow's function that plug-ins ask whether a picture has too many pixels.
_LIMIT = "_decompression_bomb_check"
#: EXIF's tag of how a picture is turned, and its values of pictures that lie on a side.
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)
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

    The header's size is checked against `max_pixels` before any pixel is decoded; Pillow's own limit is not asked, and
    it and its filters of warnings are left alone. Transparency is laid on white; 16-bit greyscale keeps its upper 8
    bits; of an animation the first frame is taken. `at_least` > 0 lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its
    size, several times faster, with both sides still at least that many pixels. Raises `BadSample` for what is not a
    whole, readable image.
    """
    try:
        with _stream(file) as stream, _undecoded(stream, max_pixels) as image:
            check_pixels(image, max_pixels)
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
    except Exception as error:  # damaged files make decoders raise almost anything
        raise BadSample(f"not a readable image: {error}") from error


def upright_size(file: str | Path, max_pixels: int = MAX_PIXELS) -> Size:
    """(height, width) of a picture upright by its EXIF orientation, of which the header alone is read. Raises
    `BadSample`."""
    try:
        with _stream(file) as stream, _undecoded(stream, max_pixels) as image:
            check_pixels(image, max_pixels)
            width, height = image.size
            is_turned = image.getexif().get(ORIENTATION) in SIDEWAYS
            return (width, height) if is_turned else (height, width)
    except BadSample:
        raise
    except FileNotFoundError:
        raise BadSample(f"no such file: {file!s}") from None
    except Exception as error:  # damaged files make decoders raise almost anything
        raise BadSample(f"not a readable image: {error}") from error


def check_pixels(image: Image.Image, max_pixels: int) -> None:
    """`BadSample` for a picture with more pixels, as its header or its decoded pixels have it."""
    _check_size(image.size, max_pixels)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise BadSample(f"more than {max_pixels:,} pixels by its header (the limit is max_pixels)")


@contextmanager
def _stream(file: str | Path | bytes) -> Iterator[BinaryIO]:
    if isinstance(file, bytes):
        yield io.BytesIO(file)
        return
    check_regular(file)
    with open(file, "rb") as opened:
        yield opened


def _undecoded(stream: BinaryIO, max_pixels: int) -> ImageFile:
    """`Image.open` with a limit of pixels of its own, in place of its global one."""
    prefix = stream.read(_PREFIX_BYTES)
    damaged = None
    for name in readable_formats():
        make, accept = Image.OPEN[name]
        if isinstance(make, type):
            make = _with_our_limit(make, max_pixels)
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


@cache
def _with_our_limit(plugin: type[ImageFile], max_pixels: int) -> type[ImageFile]:
    """A plug-in of Pillow's whose methods that ask Pillow's limit of pixels, which is one for the whole process and not
    ours to set, ask `max_pixels` instead."""
    methods = {}
    for name, method in vars(plugin).items():
        if isinstance(method, FunctionType) and _LIMIT in method.__code__.co_names:
            limited = {**method.__globals__, "Image": _LimitedImage(max_pixels)}
            copied = FunctionType(method.__code__, limited, name, method.__defaults__, method.__closure__)
            copied.__kwdefaults__ = method.__kwdefaults__
            methods[name] = copied
    return type(plugin.__name__, (plugin,), methods) if methods else plugin


class _LimitedImage:
    """Pillow's module `Image` with another limit of pixels."""

    def __init__(self, max_pixels: int):
        self._max_pixels = max_pixels

    def __getattr__(self, name: str) -> object:
        return self._check if name == _LIMIT else vars(Image)[name]

    def _check(self, size: tuple[int, int], **options: bool) -> None:
        _check_size(size, self._max_pixels)


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB, transparency laid on white; `BadSample` for none and for pixels of an unknown
    range."""
    if 0 in image.size:
        raise BadSample(f"a picture of {image.width} x {image.height} pixels")
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
