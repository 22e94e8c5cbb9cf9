"""Images with a text to training samples, and samples to batches."""

import hashlib
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from fiber_cli.data.each_caption import EachCaption
from fiber_cli.data.padding import TOKEN_COLUMNS, without_padding
from fiber_cli.data.records import Size
from fiber_cli.data.source import CaptionSource, Source, sample_id, some_captions
from fiber_cli.data.text import encode_one, mask_tokens
from fiber_cli.data.transforms import TRANSFORMS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Tensors, texts and counts by name.
Sample = dict[str, Any]
#: Stacked tensors by name, and counts.
Batch = dict[str, Any]


class Reader(Protocol):
    """Makes a training sample of sample i of a source, of the type that it can read; all chance comes from the
    generator. Raises `BadSample`."""

    def __call__(self, source: Any, i: int, rng: np.random.Generator) -> Sample: ...


class PictureSize(Protocol):
    """(height, width) that the picture of sample i of a source will have in a batch, with the generator that the sample
    will be made with; None where it is not known before the picture is read."""

    def __call__(self, source: Any, i: int, rng: np.random.Generator) -> Size | None: ...


_SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)


def caption_view(sources: Sequence[CaptionSource], captions: str) -> list[CaptionSource]:
    """Samples are images, used with one of their captions (`random`), or (image, caption) pairs (`each`)."""
    if captions == "each":
        return list(map(EachCaption, sources))
    return list(sources)


def speaks_of_sides(text: str) -> bool:
    """Whether mirroring the picture could make the text false."""
    return bool(_SIDES.search(text))


class TextReader:
    """What readers of images with a text share. Samples have `ids` int64 and `mask` bool (L,).

    augment: "none" or "randaugment". at_least: pictures may be decoded smaller as long as no side falls below it.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", text_length: int, image_size: int, augment: str):
        self.tokenizer = tokenizer
        self.text_length = text_length
        self.transform = TRANSFORMS[augment](image_size)
        self.at_least = 2 * image_size

    def sample(self, source: Source, i: int, text: str, pixels: torch.Tensor) -> Sample:
        """pixels: of the image or the images of sample i."""
        encoded = encode_one(self.tokenizer, text, self.text_length)
        return {"pixels": pixels, **encoded, "sample_ids": sample_id(source, i)}


class CaptionReader(TextReader):
    """One image with one of its captions, for coarse pre-training, retrieval and captioning.

    Gives `pixels` uint8 (3, H, W), the text, and `image_key` int64, equal for equal images; with `mlm_probability` also
    `mlm_ids` and `mlm_labels` (L,); with `references` all captions of the image as a tuple.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        text_length: int,
        image_size: int,
        augment: str,
        mlm_probability: float | None = None,
        references: bool = False,
    ):
        super().__init__(tokenizer, text_length, image_size, augment)
        self.mlm_probability = mlm_probability
        self.references = references

    def __call__(self, source: CaptionSource, i: int, rng: np.random.Generator) -> Sample:
        captions = some_captions(source, i)
        caption = captions[rng.integers(len(captions))]
        image = source.image(i, self.at_least)
        pixels = self.transform(image, rng, flip=not speaks_of_sides(caption))
        sample = self.sample(source, i, caption, pixels)
        if self.mlm_probability:
            ids, labels = mask_tokens(sample["ids"], self.tokenizer, self.mlm_probability, rng)
            sample["mlm_ids"] = ids
            sample["mlm_labels"] = labels
        if self.references:
            sample["references"] = source.references(i)
        sample["image_key"] = _image_key(sample["sample_ids"])
        return sample


def _image_key(name: str) -> torch.Tensor:
    """An int64 number for an image's name."""
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return torch.tensor(int.from_bytes(digest, signed=True))


def collate(samples: Sequence[Sample], columns: Collection[str] = TOKEN_COLUMNS) -> Batch:
    """A batch: tensors stacked, other values in lists, but `bad` as one list of the replaced samples as (id, reason)
    and `truncated` as how many texts were cut. Texts are as wide as the longest of them: `columns` names the tensors
    that have a column for every token."""
    batch: Batch = {}
    for name in samples[0]:
        column = [sample[name] for sample in samples]
        batch[name] = torch.stack(column) if torch.is_tensor(column[0]) else column
    batch["truncated"] = sum(batch["truncated"])
    bad: list[tuple[str, str]] = []
    for replaced in batch["bad"]:
        bad.extend(replaced)
    batch["bad"] = bad
    return without_padding(batch, columns) if "mask" in batch else batch
