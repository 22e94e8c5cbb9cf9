"""Image files to RGB pictures, and pixels to network input: the only place where either happens."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from fiber_cli.data.source import BadSample, Source
from fiber_cli.errors import UserError

#: The limit at which Pillow suspects a decompression bomb: 89 megapixels are 256 MB of RGB.
MAX_PIXELS = 89_478_485
#: What photographs come in. Pillow has readers for many stranger formats, one of which starts ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

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
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            if at_least:
                image.draft(None, (at_least, at_least))
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except FileNotFoundError:
        raise BadSample(f"no such file: {file}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadSample(f"more than {max_pixels:,} pixels by its header (the limit is max_pixels)") from None
    except Exception as error:  # damaged files make decoders raise almost anything
        raise BadSample(f"not a readable image: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "F":
        raise BadSample("floating-point pixels, whose range is unknown")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise BadSample("32-bit pixels, whose range is unknown")
        image = Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def normalize(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (..., 3, H, W) RGB to float32 of the same shape: [0, 1], then ImageNet mean and deviation."""
    pixels = pixels.float() / 255
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    return (pixels - mean) / std


class FolderSource(Source):
    """Image files below one folder, each with all its captions.

    Raises `UserError` where the folder is missing or holds none of 32 of the files, spread over the list: a
    wrong folder is told before the run starts, while single missing images are counted as it goes. Without `captions`
    the images have none; without `keys` they are known by their files.
    """

    max_pixels = MAX_PIXELS

    def __init__(
        self, name: str, folder: str | Path, files: list[str], captions: Sequence[Sequence[str]] = (),
        keys: Sequence[str] = (),
    ):  # fmt: skip
        self.name, self.folder, self._keys = name, Path(folder), keys or files
        # One string per image instead of one per caption: Visual Genome has 5.4 million captions.
        self._files, self._captions = files, ["\0".join(texts) for texts in captions or [()] * len(files)]
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder of images; check the path and data.root")
        if not files:
            raise UserError(f"{name}: lists no image")
        probes = files[:: max(1, len(files) // 32)]
        if not any((self.folder / file).is_file() for file in probes):
            raise UserError(
                f"{folder}: holds none of {len(probes)} images looked for, such as {probes[0]}; "
                "give the folder below which these paths lie"
            )

    def __len__(self) -> int:
        return len(self._files)

    def key(self, i: int) -> str:
        return self._keys[i]

    def captions(self, i: int) -> tuple[str, ...]:
        return tuple(filter(None, self._captions[i].split("\0")))

    def image(self, i: int, at_least: int = 0) -> Image.Image:
        return open_image(self.folder / self._files[i], self.max_pixels, at_least=at_least)
