"""Pictures and texts as a user gives them: alone or several, files, bytes, PIL images, arrays and tensors."""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from PIL import Image
from PIL.ImageFile import ImageFile

from fiber_cli.characters import says_nothing
from fiber_cli.data.images import check_pixels, open_image, to_rgb
from fiber_cli.data.source import MAX_PIXELS, BadSample
from fiber_cli.data.text import check_encoded
from fiber_cli.errors import UserError
from fiber_cli.inference.addresses import fetched_bytes, is_address
from fiber_cli.inference.arguments import items_of, refusal


@runtime_checkable
class BinaryFile(Protocol):
    """An open file or stream, such as what `open(path, "rb")` and `urllib.request.urlopen` give."""

    def read(self, size: int = -1, /) -> bytes: ...


#: A path, an address (http://, https:// or data:), an encoded image as bytes or as an open file, a picture, or uint8
#: pixels: an array (H, W) or (H, W, C), or a tensor (C, H, W), of 1 (grey), 3 (RGB) or 4 (RGBA) channels.
Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | Image.Image | np.ndarray | torch.Tensor
#: What becomes of a list in which a picture cannot be read.
OnError = Literal["raise", "skip"]

WANTED = (
    "wanted is a path, an address, the bytes of an image file, a file opened as binary, a PIL image, a uint8 array "
    "(height, width) or (height, width, 1, 3 or 4), or a uint8 tensor (1, 3 or 4, height, width)"
)
_CHANNELS = (1, 3, 4)

Item = TypeVar("Item")


class Unreadable(NamedTuple):
    """A stream that could not be read to its end."""

    reason: str


Given = Picture | Unreadable


def pictures_of(images: Picture | Sequence[Picture]) -> tuple[list[Given], bool]:
    """The pictures as a list, and whether there was one that stood alone. An array (N, H, W, C) and a tensor
    (N, C, H, W) are lists of them. UserError for an empty list and for what is no picture."""
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | BinaryFile | Image.Image):
        return [_held(images)], True
    if isinstance(images, np.ndarray | torch.Tensor) and (images.ndim in (2, 3) or not _has_items(images)):
        return [images], True
    pictures = items_of(images)
    if pictures is None:
        raise refusal("images", images, f"pictures; {WANTED}, or a list of these")
    _refuse_no_input(pictures)
    return [_held(picture) for picture in pictures], False


def _has_items(images: np.ndarray | torch.Tensor) -> bool:
    """Whether it can be gone through, which sparse tensors cannot."""
    return isinstance(images, np.ndarray) or images.layout == torch.strided


def one_or_all(results: Mapping[int, Item], count: int, *, is_single: bool) -> Item | list[Item | None]:
    """The results in the order of what was given, so many, None where one was left out; alone where that was."""
    if is_single:
        return results[0]
    return [results.get(number) for number in range(count)]


def _held(picture: Any) -> Any:
    """A stream as its content, so that it can be read more than once; everything else as it is."""
    if not isinstance(picture, BinaryFile) or isinstance(picture, Image.Image):
        return picture
    try:
        return _content(picture)
    except (OSError, ValueError) as error:
        return Unreadable(f"an open file that cannot be read ({error})")


def _content(file: BinaryFile) -> bytes | Unreadable:
    """All of a file, from its beginning where it can go back."""
    if isinstance(file, _Seekable) and file.seekable():
        file.seek(0)
    content: object = file.read()
    if isinstance(content, bytes):
        return content
    return Unreadable(f'a file opened as text, or of {type(content).__name__}; open it with mode "rb"')


@runtime_checkable
class _Seekable(Protocol):
    def seekable(self) -> bool: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...


def texts_of(texts: str | Sequence[str]) -> tuple[list[str], bool]:
    """The texts as a list, and whether there was one that stood alone. UserError for an empty list and for bytes that
    are no text."""
    if isinstance(texts, str):
        check_encoded(texts, "the text")
        return [texts], True
    _refuse_no_input(texts)
    for number, text in enumerate(texts):
        check_encoded(text, f"text {number}")
    return list(texts), False


class Pairs(NamedTuple):
    """Pairs of (picture n, text n). one_picture, one_text: whether it was given alone, to stand for all."""

    pictures: list[Given]
    texts: list[str]
    one_picture: bool
    one_text: bool

    @property
    def single(self) -> bool:
        """Whether there is one pair, of a picture and a text that both stood alone."""
        return self.one_picture and self.one_text


def pairs_of(images: Picture | Sequence[Picture], texts: str | Sequence[str]) -> Pairs:
    """The pairs of `pictures_of` and `texts_of`, where one of the two may stand for all."""
    pictures, one_picture = pictures_of(images)
    sentences, one_text = texts_of(texts)
    count = max(len(pictures), len(sentences))
    if len(pictures) not in (1, count) or len(sentences) not in (1, count):
        raise UserError(f"{len(pictures)} images and {len(sentences)} texts: give as many of both, or one of either")
    if len(pictures) == 1:
        pictures = pictures * count
    if len(sentences) == 1:
        sentences = sentences * count
    return Pairs(pictures, sentences, one_picture, one_text)


def refuse_empty(texts: Sequence[str], what: str) -> None:
    """UserError for a text, a question for example, that says nothing."""
    for number, text in enumerate(texts):
        if says_nothing(text):
            which = f"{what} {number}" if len(texts) > 1 else f"the {what}"
            raise UserError(f"{which} is empty: {text!r:.80}; write one")


def _refuse_no_input(items: Sequence[object]) -> None:
    """UserError for an empty list."""
    if not items:
        raise UserError("no input: give at least one image and text")


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last one maybe shorter; no item is read before its list is asked for."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class PictureReader:
    """Reads the pictures of one call, each by its number in it.

    on_error: "raise" a UserError for a picture that cannot be read, or "skip" it, with a warning that names it; one
    that stands alone is always an error. max_pixels: encoded images with more are not read.
    """

    def __init__(self, single: bool, on_error: OnError = "raise", max_pixels: int = MAX_PIXELS):
        self.single, self.on_error, self.max_pixels = single, on_error, max_pixels
        self._told: set[int] = set()

    def read(self, number: int, picture: Given) -> Image.Image | None:
        """The picture in RGB, None where it is skipped."""
        try:
            return read_picture(picture, self.max_pixels)
        except UserError as error:
            if self.single:
                raise
            if self.on_error == "raise":
                raise UserError(f'image {number}: {error} (on_error="skip" goes on without it)') from None
            if id(picture) not in self._told:
                self._told.add(id(picture))
                warnings.warn(f"image {number} is left out: {error.message}", stacklevel=2)
            return None

    def batches(self, pictures: Sequence[Given], size: int) -> Iterator[tuple[list[int], list[Image.Image]]]:
        """The numbers and the pictures of those that can be read, of `size` given ones at a time."""
        for batch in batches(enumerate(pictures), size):
            numbers = []
            opened = []
            for number, picture in batch:
                image = self.read(number, picture)
                if image is not None:
                    numbers.append(number)
                    opened.append(image)
            if numbers:
                yield numbers, opened


def read_picture(picture: Given, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture in RGB, transparency laid on white; files are turned upright by their EXIF orientation. max_pixels: of
    encoded images. UserError where it cannot be read or is no picture."""
    try:
        return _read(picture, max_pixels)
    except BadSample as error:
        name = os.fspath(picture) if isinstance(picture, str | os.PathLike) else type(picture).__name__
        raise UserError(f"{name}: {error}") from None


def _read(picture: Any, max_pixels: int) -> Image.Image:
    if isinstance(picture, Unreadable):
        raise BadSample(picture.reason)
    if isinstance(picture, Image.Image):
        return _in_rgb(picture, max_pixels)
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if isinstance(picture, torch.Tensor):
        return _from_tensor(picture)
    if isinstance(picture, bytes | bytearray | memoryview):
        return open_image(bytes(picture), max_pixels)
    if isinstance(picture, BinaryFile) and not isinstance(picture, os.PathLike):
        return _read(_held(picture), max_pixels)
    if isinstance(picture, str) and is_address(picture) and not os.path.exists(picture):
        return open_image(fetched_bytes(picture), max_pixels)
    if isinstance(picture, str | os.PathLike):
        return open_image(_local_path(os.fspath(picture)), max_pixels)
    raise BadSample(f"no picture; {WANTED}")


def _in_rgb(picture: Image.Image, max_pixels: int) -> Image.Image:
    if isinstance(picture, ImageFile):  # opened, and maybe not decoded yet
        check_pixels(picture, max_pixels)
    try:
        return to_rgb(picture)
    except BadSample:
        raise
    except Exception as error:  # opened from a damaged file, or closed: decoders raise almost anything
        raise BadSample(f"not a readable image: {error}") from error


def _local_path(path: str | bytes) -> Path:
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not path:
        raise BadSample("an empty path; give that of an image file")
    return Path(path)


def _from_array(array: np.ndarray) -> Image.Image:
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _CHANNELS)
    if array.dtype != np.uint8 or not is_picture or array.size == 0:
        raise BadSample(
            f"an array of {array.dtype} {array.shape}; wanted is uint8 (0 to 255), (height, width) for grey, or "
            "(height, width, channels) for 1 grey, 3 RGB or 4 RGBA channels"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)))


def _from_tensor(tensor: torch.Tensor) -> Image.Image:
    is_picture = tensor.ndim == 2 or (tensor.ndim == 3 and tensor.shape[0] in _CHANNELS)
    if tensor.dtype != torch.uint8 or not is_picture or tensor.numel() == 0:
        raise BadSample(
            f"a tensor of {tensor.dtype} {tuple(tensor.shape)}; wanted is torch.uint8 (0 to 255), (channels, height, "
            "width) for 1 grey, 3 RGB or 4 RGBA channels; one of 0 to 1 is `(255 * tensor).round().to(torch.uint8)`"
        )
    if tensor.is_meta or tensor.layout != torch.strided:
        raise BadSample("a sparse tensor, or one without values; give its `to_dense()`")
    tensor = tensor.detach().cpu()
    if tensor.ndim == 3:
        tensor = tensor.permute(1, 2, 0)
    return _from_array(tensor.numpy())
