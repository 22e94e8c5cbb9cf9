"""Pictures with boxes, and the words for them, to training samples: detection and grounding data alike.

A region source is a `Source` with `regions(i)`, which gives a `Grounded` or a `Detected`; where it gives the latter
the source has `names`, the category names by label. Boxes are xyxy edges in pixels of the upright picture.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from fiber_cli.tasks.regions import prompts
from fiber_cli.data.loader import collate, speaks_of_sides
from fiber_cli.tasks.regions.transforms import RegionTransform, inclusive, pad_batch, swap_sides
from fiber_cli.data.source import BadSample, Source, sample_id
from fiber_cli.errors import UserError

Size = tuple[int, int]


class Grounded(NamedTuple):
    """A caption, boxes float32 (n, 4), and for each box its spans in the caption; size (height, width) if known."""

    caption: str
    boxes: np.ndarray
    spans: list[list[prompts.Span]]
    size: Size | None = None


class Detected(NamedTuple):
    """Boxes float32 (n, 4) and labels int64 (n,), numbers of the source's `names`; size (height, width) if known."""

    boxes: np.ndarray
    labels: np.ndarray
    size: Size | None = None


class Phrase(NamedTuple):
    """A phrase to be found: its span, its boxes float32 (m, 4) as the evaluation takes them, its types."""

    span: prompts.Span
    boxes: np.ndarray
    types: tuple[str, ...] = ()


class Ragged:
    """Rows of different lengths in one array, which worker processes share without copying."""

    def __init__(self, rows: Sequence[Sequence], shape: tuple[int, ...], dtype: type):
        self.ends = np.cumsum([len(row) for row in rows])
        self.values = np.array([value for row in rows for value in row], dtype).reshape(-1, *shape)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.ends[i - 1] if i else 0 : self.ends[i]]


def region_image(source: Source, i: int, size: Size | None) -> Image.Image:
    """The picture at its full size; `BadSample` where the annotations speak of another size."""
    image = source.image(i)
    if size and size != (image.height, image.width):
        raise BadSample(
            f"the boxes are of {size[1]} x {size[0]} pixels, the upright picture has {image.width} x {image.height}"
        )
    return image


class RegionReader:
    """One picture with its boxes and one prompt.

    Gives `pixels` uint8 (3, h, w); `boxes` float32 (n, 4), xyxy of the first and last pixel in `pixels`; `ids` int64
    and `mask` bool (L,); `positive_map` bool (n, L), each box's tokens.

    Grounding data brings its caption. The prompt of detection data is made of names: prompt "sampled" takes those in
    the picture and up to `negatives` others (see `sample_labels`); "all" takes all, shuffled unless the source has
    `prompts`, and is a `UserError` where they do not fit. published_names, draw_background: the published way, see
    `clean_name` and `sample_labels`; swap_sides=False, also published, mirrors pictures under captions as they are.
    """

    def __init__(
        self, tokenizer, text_length: int, transform: RegionTransform, *, prompt: str = "sampled",
        negatives: int = 85, control: tuple[float, float, float] = prompts.CONTROL, published_names: bool = False,
        draw_background: bool = False, swap_sides: bool = True,
    ):  # fmt: skip
        assert prompt in ("sampled", "all")
        self.tokenizer, self.text_length, self.transform = tokenizer, text_length, transform
        self.prompt, self.published_names, self.swap_sides = prompt, published_names, swap_sides
        self.sampling = {"negatives": negatives, "control": control, "draw_background": draw_background}
        self._vocabularies: dict[tuple, tuple] = {}

    def __call__(self, source: Source, i: int, rng: np.random.Generator) -> dict:
        regions = source.regions(i)
        image = region_image(source, i, regions.size)
        boxes, kept = inclusive(regions.boxes, (image.height, image.width))
        if isinstance(regions, Grounded):
            pixels, boxes, mirrored = self.transform(image, boxes[kept], rng)
            prompt = prompts.Prompt(regions.caption, [spans for spans, keep in zip(regions.spans, kept) if keep])
            if mirrored and self.swap_sides:
                prompt = prompts.Prompt(*swap_sides(*prompt))
        else:
            shown, lengths, sided = self._vocabulary(source)
            labels = regions.labels[kept]
            order = self._order(source, labels, lengths, rng)
            place = {label: number for number, label in enumerate(order)}
            fits = np.isin(labels, order)
            pixels, boxes, _ = self.transform(image, boxes[kept][fits], rng, flip=not sided)
            text, spans = prompts.build_prompt([shown[label] for label in order])
            prompt = prompts.Prompt(text, [spans[place[label]] for label in labels[fits].tolist()])
        encoded = prompts.encode_prompt(self.tokenizer, prompt, self.text_length)._asdict()
        return {"pixels": pixels, "boxes": torch.from_numpy(boxes), **encoded, "sample_ids": sample_id(source, i)}

    def _vocabulary(self, source: Source) -> tuple:
        """How the source's names are shown, the tokens of each with its separator, and whether any names a side."""
        key = (*source.names, id(source.prompts))
        if key not in self._vocabularies:
            shown = prompts.shown_names(source.names, source.prompts, self.published_names)
            texts = [part.prefix + part.name + part.suffix + prompts.SEPARATION for part in shown]
            lengths = [len(row) for row in self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
            whole = len(self.tokenizer(prompts.build_prompt(shown).text, verbose=False)["input_ids"])
            if self.prompt == "all" and whole > self.text_length:
                raise UserError(
                    f"{source.name}: its {len(shown)} names are {whole} tokens, the model reads {self.text_length}; "
                    'choose prompt "sampled"'
                )
            self._vocabularies[key] = shown, lengths, any(map(speaks_of_sides, texts))
        return self._vocabularies[key]

    def _order(self, source: Source, labels: np.ndarray, lengths: list[int], rng: np.random.Generator) -> list[int]:
        if self.prompt == "all":
            return list(range(len(lengths))) if source.prompts else rng.permutation(len(lengths)).tolist()
        return prompts.sample_labels(labels, source.names, lengths, rng, budget=self.text_length - 2, **self.sampling)


def collate_regions(samples: list[dict]) -> dict:
    """A batch: as `loader.collate`, but `pixels` uint8 (B, 3, H, W) padded, `sizes` int64 (B, 2) the true (h, w),
    and `boxes` (N, 4) and `positive_map` (N, L) of all pictures one after another, `box_counts` int64 (B,) of each."""
    ragged = ("pixels", "boxes", "positive_map")
    batch = collate([{k: value for k, value in sample.items() if k not in ragged} for sample in samples])
    pixels, sizes = pad_batch([sample["pixels"] for sample in samples])
    return batch | {
        "pixels": pixels,
        "sizes": sizes,
        **{name: torch.cat([sample[name] for sample in samples]) for name in ("boxes", "positive_map")},
        "box_counts": torch.tensor([len(sample["boxes"]) for sample in samples]),
    }
