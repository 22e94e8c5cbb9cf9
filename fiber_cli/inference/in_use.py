"""A checkpoint that is in use: where and how it computes, and how pictures and texts become its input."""

import functools
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fiber_cli.checkpoints.loading import Loaded
from fiber_cli.checkpoints.placing import placed
from fiber_cli.checkpoints.words import read_words, unseen_of
from fiber_cli.data.padding import without_padding
from fiber_cli.data.text import encode
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UnseenWords, UserError
from fiber_cli.inference.arguments import Count, Device, Flag, Method, Texts, checked
from fiber_cli.inference.pictures import OnError, Pairs, PictureReader, batches, texts_of
from fiber_cli.inference.unseen import never_seen
from fiber_cli.model.fusion import ImageStem, TextStem
from fiber_cli.model.pixels import normalize
from fiber_cli.model.precision import precision_context
from fiber_cli.placement import Placement, Precision
from fiber_cli.tasks.abilities import Detecting
from fiber_cli.tasks.retrieval.pairs import grouped, image_rows

#: Inputs in one pass, where that is not given.
BATCH_SIZE, DETECTION_BATCH_SIZE = 32, 4


class InUse:
    """A checkpoint in use. device: None for a GPU where there is one; batch_size: inputs in one pass; precision, tf32:
    see `Placement`. Nothing of it changes after it is made, so that threads can share it:
    what a call needs, it has for itself."""

    @checked
    def __init__(
        self,
        loaded: Loaded,
        device: Device | None = None,
        batch_size: Count | None = None,
        precision: Precision = "auto",
        tf32: Flag | None = None,
    ):
        name = None if device is None else str(device)
        in_place = placed(loaded, Placement(name, precision, tf32))
        self.loaded = in_place.loaded
        self.context = loaded.context
        self.device = in_place.device
        self.precision = in_place.precision
        self.task = self.loaded.task
        usual = DETECTION_BATCH_SIZE if isinstance(self.task, Detecting) else BATCH_SIZE
        self.batch_size = batch_size or usual
        self.transform = EvalTransform(loaded.context.model.image_size)

    @checked
    def unseen_words(self, texts: Texts) -> list[str]:
        """The words of the texts that no caption, name, question or other text of the checkpoint's training had, in
        small letters, each once: what is said of them is a guess. None where the words of its training are not known.
        Methods that are given such words warn of them (`errors.UnseenWords`)."""
        sentences, _ = texts_of(texts)
        return unseen_of(self._known_words, sentences)

    @cached_property
    def _known_words(self) -> frozenset[str] | None:
        return read_words(self.loaded.path)

    def warn_of_unseen(self, texts: Sequence[str]) -> None:
        """A warning, where there are such words."""
        unseen = unseen_of(self._known_words, texts)
        if unseen:
            warnings.warn(never_seen(unseen), UnseenWords, stacklevel=2)

    def _read_pairs(
        self, pairs: Pairs, on_error: OnError, max_pixels: int
    ) -> Iterator[tuple[list[int], ImageStem, list[str]]]:
        """Numbers, image stems and texts of the pairs that can be read, a batch at a time; a picture of several pairs
        of a batch has its stem computed once."""
        reader = PictureReader(pairs.one_picture, on_error, max_pixels)
        for numbers in batches(range(len(pairs.texts)), self.batch_size):
            opened: list[Image.Image] = []
            row_of: dict[int, int | None] = {}
            rows = []
            kept = []
            for number in numbers:
                picture = pairs.pictures[number]
                if id(picture) not in row_of:
                    image = reader.read(number, picture)
                    row_of[id(picture)] = None if image is None else len(opened)
                    if image is not None:
                        opened.append(image)
                row = row_of[id(picture)]
                if row is not None:
                    rows.append(row)
                    kept.append(number)
            if kept:
                stems = self._image_stems(opened)
                yield kept, ImageStem(stems.map[rows]), [pairs.texts[number] for number in kept]

    def _stems_of_pairs(
        self, pairs: Pairs, on_error: OnError, max_pixels: int
    ) -> Iterator[tuple[list[int], ImageStem, TextStem]]:
        """Numbers, image stems and text stems of the pairs that can be read, in batches as re-ranking has them: every
        picture and every text of a batch is computed once, see `Matching.match`, and a picture of several batches in
        the first."""
        reader = PictureReader(pairs.one_picture, on_error, max_pixels)
        numbers_of: dict[int, list[int]] = {}
        for number, picture in enumerate(pairs.pictures):
            numbers_of.setdefault(id(picture), []).append(number)
        pair_numbers = [np.array(numbers) for numbers in numbers_of.values()]
        maps: dict[int, Tensor] = {}
        for group in grouped(pair_numbers, self.batch_size):
            maps = {chunk.row: maps[chunk.row] for chunk in group if chunk.row in maps}
            opened: dict[int, Image.Image] = {}
            for row, _ in group:
                first = int(pair_numbers[row][0])
                image = None if row in maps else reader.read(first, pairs.pictures[first])
                if image is not None:
                    opened[row] = image
            if opened:
                maps |= zip(opened, self._image_stems(list(opened.values())).map, strict=True)
            readable = [chunk for chunk in group if chunk.row in maps]
            if readable:
                kept = np.concatenate([chunk.texts for chunk in readable]).tolist()
                of_pictures = torch.stack([maps[row] for row in image_rows(readable)])
                yield kept, ImageStem(of_pictures), self._stems_of_texts([pairs.texts[number] for number in kept])

    def _stems_of_texts(self, texts: list[str]) -> TextStem:
        """`_text_stems`, each different text computed once."""
        row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        stems = self._text_stems(list(row_of))
        rows = [row_of[text] for text in texts]
        return TextStem(stems.tokens[rows], stems.mask[rows])

    def _image_stems(self, pictures: list[Image.Image]) -> ImageStem:
        return self.task.encoder.image_stem(normalize(self._pixels(pictures)))

    def _pixels(self, pictures: list[Image.Image]) -> Tensor:
        """Of RGB pictures, uint8 (B, 3, H, W) on the device."""
        pixels = [self.transform(picture) for picture in pictures]
        return torch.stack(pixels).to(self.device)

    def _text_stems(self, texts: list[str]) -> TextStem:
        return self.task.encoder.text_stem(*self._encoded(texts))

    def _encoded(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens int64 and mask bool (B, L) on the device, as wide as the longest text. UserError for texts that would
        be cut."""
        ids, mask, truncated = encode(self.context.tokenizer, texts, self.context.text_length)
        if truncated:
            longest = max(texts, key=len)
            raise UserError(
                f"{truncated} of the texts are longer than the model's {self.context.text_length} tokens, such as "
                f"{longest[:80]!r}; shorten them"
            )
        self.warn_of_unseen(texts)
        texts_only = without_padding({"ids": ids, "mask": mask})
        return texts_only["ids"].to(self.device), texts_only["mask"].to(self.device)


def computing(method: Method) -> Method:
    """A method of `InUse` that computes without gradients and in the precision of its object; of other threads none of
    this is."""

    @functools.wraps(method)
    def compute(self: InUse, *arguments: Any, **named: Any) -> Any:
        with torch.inference_mode(), precision_context(self.precision, self.device):
            return method(self, *arguments, **named)

    return cast(Method, compute)
