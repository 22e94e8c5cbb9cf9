"""Images with boxes, and the words for them, to training samples: detection and grounding data alike."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from fiber_cli.characters import one_line
from fiber_cli.data.box_edges import inclusive
from fiber_cli.data.readers import collate, speaks_of_sides
from fiber_cli.data.records import NamedBoxes, PhraseBoxes, Size, Span
from fiber_cli.data.source import BadSample, CategorySource, ImageSource, RegionSource, Source, require, sample_id
from fiber_cli.errors import UserError
from fiber_cli.model.pixels import pad_batch
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.regions.label_sampling import CONTROL, sample_labels
from fiber_cli.tasks.regions.prompts import (
    SEPARATION,
    Prompt,
    PromptName,
    build_prompt,
    encode_prompt,
    prompt_names,
)
from fiber_cli.tasks.regions.settings import RegionSettings
from fiber_cli.tasks.regions.transforms import RegionTransform, swap_sides
from fiber_cli.tasks.training_data import ReadingOptions, TrainingData

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


#: Files say of how many of their pictures how large they are, or of none: so many tell which.
_ASKED_FOR_SIZES = 100


def region_image(source: ImageSource, i: int, size: Size | None) -> Image.Image:
    """The image at its full size; `BadSample` where the annotations speak of another size, (height, width)."""
    image = source.image(i)
    if size and size != (image.height, image.width):
        raise BadSample(
            f"the boxes are of {size[1]} x {size[0]} pixels, the upright picture has {image.width} x {image.height}"
        )
    return image


class _Vocabulary(NamedTuple):
    """The names of a source as prompts show them, the tokens of each with its separator, and whether any names a
    side."""

    names: list[PromptName]
    lengths: list[int]
    names_a_side: bool


class _RegionSample(NamedTuple):
    """pixels: uint8 (3, h, w). boxes: (n, 4), xyxy of the first and last pixel in `pixels`, each with its spans in the
    prompt."""

    pixels: torch.Tensor
    boxes: np.ndarray
    prompt: Prompt


class RegionReader:
    """One image with its boxes and one prompt.

    Gives `pixels` uint8 (3, h, w); `boxes` float32 (n, 4), xyxy of the first and last pixel in `pixels`; `ids` int64
    and `mask` bool (L,); `positive_map` bool (n, L), each box's tokens.

    Grounding data brings its caption. The prompt of detection data is made of names: prompt "sampled" takes those in
    the image, at most `positives`, and up to `negatives` others (see `sample_labels`, for `absent` and `short` too);
    "all" takes all, shuffled unless the source has `prompts`, and is a `UserError` where they do not fit.
    names_as_published, draw_background: see `clean_name` and `sample_labels`; swap_sides=False, also published, mirrors
    images under captions as they are. size_first: how large the picture gets is drawn before all else, so that
    `picture_size` can tell.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        text_length: int,
        transform: RegionTransform,
        *,
        prompt: Literal["sampled", "all"] = "sampled",
        negatives: int = 85,
        control: tuple[float, float, float] = CONTROL,
        absent: tuple[float, float] = (0, 0),
        positives: int | None = None,
        short: float = 0,
        names_as_published: bool = False,
        draw_background: bool = False,
        swap_sides: bool = True,
        size_first: bool = False,
    ):
        self.tokenizer = tokenizer
        self.text_length = text_length
        self.transform = transform
        self.prompt = prompt
        self.negatives = negatives
        self.control = control
        self.absent = absent
        self.positives = positives
        self.short = short
        self.names_as_published = names_as_published
        self.draw_background = draw_background
        self.swap_sides = swap_sides
        self.size_first = size_first
        self._vocabularies: dict[tuple[object, ...], _Vocabulary] = {}

    def __call__(self, source: RegionSource, i: int, rng: np.random.Generator) -> dict[str, Any]:
        regions = source.regions(i)
        short = self.transform.short_side(rng) if self.size_first else None
        image = region_image(source, i, regions.size)
        boxes, inside = inclusive(regions.boxes, (image.height, image.width))
        if isinstance(regions, PhraseBoxes):
            spans = [box_spans for box_spans, kept in zip(regions.spans, inside, strict=True) if kept]
            sample = self._caption_sample(image, boxes[inside], Prompt(regions.caption, spans), rng, short)
        else:
            assert isinstance(source, CategorySource), "only categories come as NamedBoxes"
            named = NamedBoxes(boxes[inside], regions.labels[inside])
            sample = self._names_sample(source, image, named, rng, short)
        encoded = encode_prompt(self.tokenizer, sample.prompt, self.text_length)
        return {
            "pixels": sample.pixels,
            "boxes": torch.from_numpy(sample.boxes),
            **encoded._asdict(),
            "sample_ids": sample_id(source, i),
        }

    def picture_size(self, source: RegionSource, i: int, rng: np.random.Generator) -> Size | None:
        """See `readers.PictureSize`; with `size_first`."""
        size = source.known_size(i)
        return None if size is None else self.transform.new_size(size, self.transform.short_side(rng))

    def _caption_sample(
        self, image: Image.Image, boxes: np.ndarray, prompt: Prompt, rng: np.random.Generator, short: int | None
    ) -> _RegionSample:
        pixels, boxes, mirrored = self.transform(image, boxes, rng, short=short)
        if mirrored and self.swap_sides:
            prompt = Prompt(*swap_sides(*prompt))
        return _RegionSample(pixels, boxes, prompt)

    def _names_sample(
        self,
        source: CategorySource,
        image: Image.Image,
        regions: NamedBoxes,
        rng: np.random.Generator,
        short: int | None,
    ) -> _RegionSample:
        vocabulary = self._vocabulary(source)
        labels = self._prompt_labels(source, regions.labels, vocabulary.lengths, rng)
        text, label_spans = build_prompt([vocabulary.names[label] for label in labels])
        spans_of = dict(zip(labels, label_spans, strict=True))
        in_prompt = np.isin(regions.labels, labels)
        boxes = regions.boxes[in_prompt]
        box_spans = [spans_of[label] for label in regions.labels[in_prompt].tolist()]
        if source.several_names:
            boxes, box_spans = _each_box_once(boxes, box_spans)
        pixels, boxes, _ = self.transform(image, boxes, rng, not vocabulary.names_a_side, short)
        return _RegionSample(pixels, boxes, Prompt(text, box_spans))

    def _prompt_labels(
        self, source: CategorySource, positives: np.ndarray, lengths: list[int], rng: np.random.Generator
    ) -> list[int]:
        """The labels of the prompt, in its order."""
        if self.prompt == "sampled":
            return sample_labels(
                positives,
                source.names,
                lengths,
                rng,
                budget=self.text_length - 2,
                negatives=self.negatives,
                control=self.control,
                draw_background=self.draw_background,
                absent=self.absent,
                most_positives=self.positives,
                short=self.short,
            )
        if source.prompts:
            return list(range(len(lengths)))
        return rng.permutation(len(lengths)).tolist()

    def _vocabulary(self, source: CategorySource) -> _Vocabulary:
        key = (*source.names, id(source.prompts))
        if key not in self._vocabularies:
            self._vocabularies[key] = self._read_vocabulary(source)
        return self._vocabularies[key]

    def _read_vocabulary(self, source: CategorySource) -> _Vocabulary:
        names = prompt_names(source.names, source.prompts, self.names_as_published)
        texts = [name.text + SEPARATION for name in names]
        ids = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        prompt_ids = self.tokenizer(build_prompt(names).text, verbose=False)["input_ids"]
        if self.prompt == "all" and len(prompt_ids) > self.text_length:
            raise UserError(
                f"{source.name}: its {len(names)} names are {len(prompt_ids)} tokens, the model reads "
                f'{self.text_length}; choose prompt "sampled"'
            )
        names_a_side = any(map(speaks_of_sides, texts))
        return _Vocabulary(names, list(map(len, ids)), names_a_side)


def _each_box_once(boxes: np.ndarray, spans: list[list[Span]]) -> tuple[np.ndarray, list[list[Span]]]:
    """Boxes (n, 4) that are the same as one, with the spans of all its names."""
    spans_of: dict[tuple[float, ...], list[Span]] = {}
    for box, of_box in zip(boxes.tolist(), spans, strict=True):
        spans_of.setdefault(tuple(box), []).extend(of_box)
    return np.array(list(spans_of), np.float32).reshape(-1, 4), list(spans_of.values())


def collate_regions(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: as `readers.collate`, but `pixels` uint8 (B, 3, H, W) padded, `sizes` int64 (B, 2) the true (h, w),
    and `boxes` (N, 4) and `positive_map` (N, L) of all images one after another, `box_counts` of each as a list."""
    of_images: dict[str, list[torch.Tensor]] = {"pixels": [], "boxes": [], "positive_map": []}
    stackable = []
    for sample in samples:
        rest = dict(sample)
        for name, values in of_images.items():
            values.append(rest.pop(name))
        stackable.append(rest)
    pixels, sizes = pad_batch(of_images["pixels"])
    batch = collate(stackable)
    width = batch["mask"].shape[1]
    return batch | {
        "pixels": pixels,
        "sizes": sizes,
        "boxes": torch.cat(of_images["boxes"]),
        "positive_map": torch.cat(of_images["positive_map"])[:, :width],
        "box_counts": list(map(len, of_images["boxes"])),
    }


def _tells_sizes(source: RegionSource) -> bool:
    """Whether the size of a picture is known before it is read, of any of the first ones."""
    first = range(min(len(source), _ASKED_FOR_SIZES))
    return any(source.known_size(i) is not None for i in first)


def training_data(
    sources: Sequence[Source], context: TaskContext[RegionSettings], options: ReadingOptions
) -> TrainingData:
    """Samples as `RegionReader` makes them; the labels are the category names of all sources."""
    settings = context.settings
    regions = require(sources, RegionSource)
    reader = RegionReader(
        context.tokenizer,
        context.text_length,
        RegionTransform(settings.short_sides, settings.longest_side, settings.flip),
        prompt=settings.prompt,
        negatives=settings.negatives,
        control=settings.control,
        absent=settings.absent,
        positives=settings.positives,
        short=settings.short,
        names_as_published=settings.names_as_published,
        draw_background=settings.draw_background,
        swap_sides=settings.swap_sides,
        size_first=settings.group_by_shape,
    )
    names: dict[str, None] = {}
    remarks = []
    for source in regions:
        if source.trained_boxes == 0:
            reason = "no box to train on" if source.annotated else "no annotations: it can only be predicted"
            raise UserError(f"data.train: {source.name} has {reason}; give a file with boxes")
        if source.trained_boxes == source.wordless_boxes:
            raise UserError(
                f"data.train: {source.name}: none of its {source.trained_boxes} boxes has words of its caption, so "
                "nothing would be learned of words; give a file with spans (tokens_positive) or phrases"
            )
        if source.wordless_boxes:
            remarks.append(
                f"{source.wordless_boxes} of {source.trained_boxes} boxes of {source.name} have no words of their "
                "caption: trained on as places alone"
            )
        if settings.group_by_shape and not _tells_sizes(source):
            remarks.append(
                f"{source.name} does not say how large its pictures are: task.group_by_shape leaves them in their "
                "order, behind those of other sources"
            )
        if isinstance(source, CategorySource):
            names.update(dict.fromkeys(source.names))
    return TrainingData(
        regions,
        reader,
        collate_regions,
        tuple(names) or None,
        dropped="boxes without an area inside their image",
        remark="\n".join(map(one_line, remarks)) or None,
        picture_size=reader.picture_size if settings.group_by_shape else None,
    )
