"""Pictures and texts as a user gives them: alone or several, files, folders, PIL images and arrays."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from fiber_cli.data.images import open_image, to_rgb
from fiber_cli.data.source import BadSample
from fiber_cli.errors import UserError

#: A path, a picture, or uint8 RGB (H, W, 3).
Picture = str | Path | Image.Image | np.ndarray
#: What is taken for a picture below a folder.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}

Item = TypeVar("Item")


def pictures_of(images: Picture | Sequence[Picture]) -> tuple[list[Picture], bool]:
    """The pictures as a list, and whether there was one that stood alone. An array (N, H, W, 3) is a list of them.
    UserError for an empty list."""
    if isinstance(images, str | Path | Image.Image):
        return [images], True
    if isinstance(images, np.ndarray) and images.ndim == 3:
        return [images], True
    return _not_empty(list(images)), False


def texts_of(texts: str | Sequence[str]) -> tuple[list[str], bool]:
    """The texts as a list, and whether there was one that stood alone. UserError for an empty list."""
    if isinstance(texts, str):
        return [texts], True
    return _not_empty(list(texts)), False


def pairs_of(images: Picture | Sequence[Picture], texts: str | Sequence[str]) -> tuple[list[tuple[Picture, str]], bool]:
    """(image n, text n), where one of the two may stand for all; and whether both stood alone."""
    pictures, one_picture = pictures_of(images)
    sentences, one_sentence = texts_of(texts)
    count = max(len(pictures), len(sentences))
    if len(pictures) not in (1, count) or len(sentences) not in (1, count):
        raise UserError(f"{len(pictures)} images and {len(sentences)} texts: give as many of both, or one of either")
    if len(pictures) == 1:
        pictures = pictures * count
    if len(sentences) == 1:
        sentences = sentences * count
    return list(zip(pictures, sentences, strict=True)), one_picture and one_sentence


def _not_empty(items: list[Item]) -> list[Item]:
    if not items:
        raise UserError("no input: give at least one image and text")
    return items


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last one maybe shorter; no item is read before its list is asked for."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def read_picture(picture: Picture) -> Image.Image:
    """A picture in RGB; files are turned upright by their EXIF orientation. UserError where it cannot be read."""
    try:
        if isinstance(picture, Image.Image):
            return to_rgb(picture)
        if isinstance(picture, np.ndarray):
            return _from_array(picture)
        return open_image(Path(picture))
    except BadSample as error:
        name = picture if isinstance(picture, str | Path) else type(picture).__name__
        raise UserError(f"{name}: {error}") from None


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise BadSample(f"an array of {array.dtype} {array.shape}; wanted is uint8 RGB (height, width, 3)")
    return Image.fromarray(array)


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files given, and all image files below the folders given, in order. Raises UserError for a path that is not
    there and for a folder without images."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += _images_below(path)
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return files


def _images_below(folder: Path) -> list[Path]:
    files = []
    for file in folder.rglob("*"):
        if file.suffix.lower() in SUFFIXES and file.is_file():
            files.append(file)
    if not files:
        raise UserError(f"{folder}: no image files below this folder ({', '.join(sorted(SUFFIXES))})")
    return sorted(files)


def distinct_images(paths: Iterable[Path]) -> list[Path]:
    """As `find_images`, each file once."""
    return list(dict.fromkeys(find_images(paths)))
