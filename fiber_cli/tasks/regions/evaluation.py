"""Evaluation of detection, phrase grounding and referring expressions."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch

from fiber_cli.tasks.evalset import EvalSet, Score
from fiber_cli.data.files import read_json
from fiber_cli.data.sources.grounding import phrases_of
from fiber_cli.tasks.regions.prompts import Encoded, Prompt, Shown, build_prompt, chunk_labels, encode_prompt, shown_names
from fiber_cli.tasks.regions.transforms import LONGEST, RegionTransform, pad_batch, padded, resized
from fiber_cli.tasks.regions.data import Detected, Phrase, region_image
from fiber_cli.data.source import BadSample, Source, sample_id, usable
from fiber_cli.errors import UserError
from fiber_cli.tasks.regions.average_precision import FIXED_PER_CLASS, LVIS_PER_IMAGE, Detections, best_per_group, coco_ap, lvis_ap
from fiber_cli.tasks.regions.metrics import phrase_recall, ranked, referring_accuracy

NO_BOXES = np.empty((0, 6), np.float32)


class Asked(NamedTuple):
    """The prompts of a batch, the (picture, prompt) pairs to look at, and the number to report for each label."""

    prompts: list[Encoded]
    pairs: list[tuple[int, int]]
    labels: torch.Tensor

    @classmethod
    def all(cls, prompts: list[Encoded], pictures: int) -> Self:
        """Every picture is asked every prompt; labels are numbered through."""
        pairs = [(b, p) for b in range(pictures) for p in range(len(prompts))]
        return cls(prompts, pairs, torch.arange(sum(len(prompt.positive_map) for prompt in prompts)))

    def batch(self, pixels: Sequence[torch.Tensor], original_sizes: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """`pixels` uint8 (B, 3, H, W), padded; `sizes` and `original_sizes` int64 (B, 2), (height, width); P prompts
        as `ids` int64 and `mask` bool (P, L); `pairs` int64 (Q, 2), the (picture, prompt) to look at; labels of all
        prompts one after another as `positive_map` bool (N, L), with `label_prompt` and `labels` int64 (N,): the
        prompt that names the label, and the number to report for it."""
        padded, sizes = pad_batch(pixels)
        counts = torch.tensor([len(prompt.positive_map) for prompt in self.prompts])
        return {
            "pixels": padded,
            "sizes": sizes,
            "original_sizes": torch.stack(list(original_sizes)),
            "ids": torch.stack([prompt.ids for prompt in self.prompts]),
            "mask": torch.stack([prompt.mask for prompt in self.prompts]),
            "pairs": torch.tensor(self.pairs),
            "positive_map": torch.cat([prompt.positive_map for prompt in self.prompts]),
            "label_prompt": torch.repeat_interleave(torch.arange(len(self.prompts)), counts),
            "labels": self.labels,
        }


def label_prompts(shown: Sequence[Shown], tokenizer, text_length: int, chunk: int | str) -> list[Encoded]:
    """Prompts that together name all labels in their order; chunk: see `chunk_labels`."""
    chunks = chunk_labels(shown, tokenizer, text_length, chunk)
    prompts = [build_prompt([shown[label] for label in labels]) for labels in chunks]
    return [encode_prompt(tokenizer, prompt, text_length) for prompt in prompts]


class RegionSet(EvalSet):
    """Pictures, by their number in the source, and prompts that they are asked.

    `POSTPROCESSING` is put over the task's own settings, where a benchmark asks for others.

    A prediction is one array (n, 6) per item: x1, y1, x2, y2 in pixels of the original picture, named by their first
    and last pixel, score, label.
    """

    POSTPROCESSING: ClassVar[dict[str, float]] = {}

    def __init__(self, source: Source, chosen: Sequence[int], short: int, longest: int):
        self.source, self.chosen = source, list(chosen)
        self.transform = RegionTransform((short,), longest, flip=0)
        self.ids = [sample_id(source, i) for i in self.chosen]

    def share(self, rank: int, world: int) -> Sequence[int]:
        return self._order[rank::world]

    @cached_property
    def _order(self) -> list[int]:
        """Pictures that pad to one size follow each other, because they share a pass of the model."""
        return sorted(range(len(self)), key=self._padded_size)

    def _padded_size(self, index: int) -> tuple[int, ...]:
        try:
            size = self.source.regions(self.chosen[index]).size
            short, longest = *self.transform.short_sides, self.transform.longest
            return tuple(map(padded, resized(*size, short, longest))) if size else ()
        except (BadSample, TypeError):
            return ()  # told where the picture is read

    def read(self, index: int) -> dict[str, Any]:
        i = self.chosen[index]
        image = region_image(self.source, i, self.source.regions(i).size)
        pixels, _, _ = self.transform(image, np.empty((0, 4)))
        return {"pixels": pixels, "original_size": torch.tensor([image.height, image.width])}

    def ask(self, indices: list[int]) -> Asked:
        raise NotImplementedError

    def collate(self, indices: list[int], items: list[dict[str, Any]]) -> dict[str, Any]:
        """As `Asked.batch`, and `postprocessing`."""
        asked = self.ask(indices)
        batch = asked.batch([item["pixels"] for item in items], [item["original_size"] for item in items])
        truncated = sum(prompt.truncated for prompt in asked.prompts)
        return batch | {"truncated": truncated, "postprocessing": self.POSTPROCESSING}


class DetectionSet(RegionSet):
    """COCO AP over the pictures of a detection source; a label is a number in the source's `names`.

    chunk: see `chunk_labels`; published_names: see `shown_names`.
    """

    def __init__(
        self, source: Source, tokenizer, text_length: int, *, short: int = 800, longest: int = LONGEST,
        chunk: int | str = "auto", published_names: bool = False,
    ):  # fmt: skip
        ids = getattr(source, "image_ids", range(len(source)))
        first: dict[int, int] = {}  # the copies of few-shot training are looked at once
        for i in range(len(source)):
            first.setdefault(ids[i], i)
        super().__init__(source, list(first.values()), short, longest)
        shown = shown_names(source.names, source.prompts, published_names)
        self.prompts = label_prompts(shown, tokenizer, text_length, chunk)
        self.image_ids = list(first)

    def ask(self, indices: list[int]) -> Asked:
        return Asked.all(self.prompts, len(indices))

    def truth(self) -> dict[str, Any]:
        """The source's file, or for scenes the same from what they know."""
        if hasattr(self.source, "json"):
            return read_json(self.source.json, "the detection JSON that is evaluated")
        annotations = []
        for i in self.chosen:
            regions = self.source.regions(i)
            if not isinstance(regions, Detected):
                raise UserError(f"{self.source.name}: holds captions beside category names; evaluate them apart")
            boxes, labels, _ = regions
            for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist()):
                annotations.append({"image_id": i, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]})
        categories = [{"id": label, "name": name} for label, name in enumerate(self.source.names)]
        return {"images": [{"id": i} for i in self.chosen], "annotations": annotations, "categories": categories}

    def found(self, predictions: dict[int, np.ndarray], extent: int) -> Detections:
        """Predictions with the original ids, boxes xywh with a width of x2 - x1 + `extent`."""
        order = sorted(predictions)
        rows = np.concatenate([NO_BOXES, *(predictions[index] for index in order)]).astype(float)
        images = np.repeat([self.image_ids[i] for i in order], [len(predictions[i]) for i in order]).astype(int)
        ids = np.array(getattr(self.source, "category_ids", range(len(self.source.names))))
        boxes = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2] + extent], 1)
        return Detections(images, ids[rows[:, 5].astype(int)], boxes, rows[:, 4])

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        """COCO AP; a picture that could not be read counts as one without detections."""
        found = self.found(predictions, extent=1)
        return _score(found, *coco_ap(self.truth(), found, self.image_ids))


class LvisSet(DetectionSet):
    """LVIS by both protocols: `lvis/ap` with 300 detections an image, and `lvis/fixed_ap`; so each class too."""

    POSTPROCESSING: ClassVar[dict[str, float]] = {"max_detections": LVIS_PER_IMAGE}

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        truth, ids = self.truth(), set(self.image_ids)
        truth["images"] = [image for image in truth["images"] if image["id"] in ids]
        truth["annotations"] = [each for each in truth["annotations"] if each["image_id"] in ids]
        found = self.found(predictions, extent=0)
        best = found[best_per_group(found.categories, found.scores, FIXED_PER_CLASS)]
        fixed, fixed_table = lvis_ap(truth, best)
        standard, table = lvis_ap(truth, found[best_per_group(found.images, found.scores, LVIS_PER_IMAGE)])
        metrics = {f"lvis/fixed_{name}": value for name, value in fixed.items()}
        metrics |= {f"lvis/{name}": value for name, value in standard.items()}
        return _score(best, metrics, [row | {"fixed_ap": own["ap"]} for row, own in zip(table, fixed_table)])


def _score(found: Detections, metrics: dict[str, float], table: list[dict[str, Any]]) -> Score:
    """table: of each category `name`, and its numbers; a long one is in its file only."""
    notes = [f"{len(table)} classes: see per_class.json"]
    if len(table) <= 100:
        keys = [key for key in ("ap", "ap50", "fixed_ap") if table and key in table[0]]
        notes = ["   ".join([f"{row['name']:<32}", *(f"{key} {row[key]:6.2f}" for key in keys)]) for row in table]
    return Score(metrics, {"detections.json": found.to_json(), "per_class.json": table}, notes)


class TextRegionSet(RegionSet):
    """Pictures with a text each, whose phrases are to be found: a label is the number of a phrase in its text."""

    def __init__(self, source: Source, tokenizer, text_length: int, *, short: int = 800, longest: int = LONGEST):
        self.tokenizer, self.text_length = tokenizer, text_length
        chosen, self.texts, self.left_out = usable(
            range(len(source)), lambda i: self.text(source, i), lambda i: sample_id(source, i)
        )
        super().__init__(source, chosen, short, longest)

    def text(self, source: Source, i: int) -> tuple[str, list[Phrase]]:
        """A text and its phrases, at least one; raises `BadSample`."""
        raise NotImplementedError

    def ask(self, indices: list[int]) -> Asked:
        """Every picture is asked its own prompt."""
        texts = [self.texts[index] for index in indices]
        prompts = [Prompt(text, [[phrase.span] for phrase in phrases]) for text, phrases in texts]
        labels = torch.cat([torch.arange(len(phrases)) for _, phrases in texts])
        encoded = [encode_prompt(self.tokenizer, prompt, self.text_length) for prompt in prompts]
        return Asked(encoded, [(b, b) for b in range(len(texts))], labels)


class PhraseSet(TextRegionSet):
    """Flickr30k Entities' recall of every phrase that has a box; of a picture that could not be read none is found."""

    def text(self, source: Source, i: int) -> tuple[str, list[Phrase]]:
        text, phrases = phrases_of(source, i)
        if not phrases:
            raise BadSample("no phrase of the text has a box")
        return text, phrases

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        phrases, sentences = [], []
        for index, (_, wanted) in enumerate(self.texts):
            rows = ranked(predictions.get(index, NO_BOXES))
            own = [rows[rows[:, 5] == label] for label in range(len(wanted))]
            phrases += [(found[:, :4], phrase.boxes, phrase.types) for found, phrase in zip(own, wanted)]
            boxes, scores = ([found[:, columns].tolist() for found in own] for columns in (slice(4), 4))
            sentences.append({"id": self.source.key(self.chosen[index]), "boxes": boxes, "scores": scores})
        notes = [f"{len(phrases)} phrases in {len(self)} texts"]
        return Score(phrase_recall(phrases), {"phrases.json": sentences}, notes)


class ReferringSet(TextRegionSet):
    """Referring expressions: the whole text is one phrase, with one box."""

    POSTPROCESSING: ClassVar[dict[str, float]] = {"score_threshold": 0.0, "pre_nms_topk": 3000}

    def text(self, source: Source, i: int) -> tuple[str, list[Phrase]]:
        regions = source.regions(i)
        if len(regions.boxes) != 1:
            raise BadSample(f"an expression has one box, this has {len(regions.boxes)}")
        return regions.caption, [Phrase((0, len(regions.caption)), regions.boxes)]

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        found = [ranked(predictions.get(index, NO_BOXES)) for index in range(len(self))]
        names = [self.source.key(i) for i in self.chosen]
        answers = [
            {"id": name, "boxes": rows[:, :4].tolist(), "scores": rows[:, 4].tolist()}
            for name, rows in zip(names, found)
        ]
        truth = [phrases[0].boxes[0] for _, phrases in self.texts]
        return Score(referring_accuracy(zip(found, truth)), {"expressions.json": answers})


def region_sets(
    sources: Sequence[Source], tokenizer, text_length: int, sides: tuple[int, int], *, referring: bool,
    chunk: int | str = "auto", published_names: bool = False,
) -> list[RegionSet]:  # fmt: skip
    """How each source is evaluated: detection where it has names (LVIS's way where it has LVIS's lists), else its
    phrases, or its texts as one expression each where it `refers`, or does not say and `referring` is set."""
    sets: list[RegionSet] = []
    for source in sources:
        options = {"short": sides[0], "longest": sides[1]}
        if getattr(source, "names", None):
            kind = LvisSet if getattr(source, "federated", False) else DetectionSet
            options |= {"chunk": chunk, "published_names": published_names}
        else:
            refers = getattr(source, "refers", None)
            kind = ReferringSet if refers or (refers is None and referring) else PhraseSet
        sets.append(kind(source, tokenizer, text_length, **options))
    if chunk != "auto" and not any(isinstance(each, DetectionSet) for each in sets):
        raise UserError("--chunk is for detection; phrases and expressions have a text each")
    return sets
