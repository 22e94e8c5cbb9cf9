"""Evaluation of phrase grounding: every phrase of a text is to be found in the text's image."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from fiber_cli.data.records import Phrase
from fiber_cli.data.source import BadSample, PhraseSource, sample_id, usable
from fiber_cli.tasks.evalset import Score
from fiber_cli.tasks.regions.detection_rows import ranked
from fiber_cli.tasks.regions.metrics import PhraseDetections, phrase_recall
from fiber_cli.tasks.regions.prompt_batch import PromptBatch
from fiber_cli.tasks.regions.prompts import Prompt, encode_prompt
from fiber_cli.tasks.regions.region_set import NO_DETECTIONS, RegionSet
from fiber_cli.tasks.regions.transforms import LONGEST

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextRegionSet(RegionSet):
    """Images with a text each, whose phrases are to be found. `texts`: the prompt of each item, in which a label is the
    number of its spans, and the phrases with their boxes."""

    def __init__(
        self,
        source: PhraseSource,
        tokenizer: "PreTrainedTokenizerBase",
        text_length: int,
        *,
        short: int = 800,
        longest: int = LONGEST,
    ):
        self.tokenizer = tokenizer
        self.text_length = text_length
        self._doubts = source.doubts
        read = partial(self.text, source)
        chosen, self.texts, self.left_out = usable(range(len(source)), read, partial(sample_id, source))
        super().__init__(source, chosen, short, longest)

    def remarks(self) -> list[str]:
        return [*super().remarks(), *self._doubts]

    @abstractmethod
    def text(self, source: PhraseSource, i: int) -> tuple[Prompt, list[Phrase]]:
        """What an image is asked, at least one label, and its phrases; raises `BadSample`."""

    def prompt_batch(self, indices: list[int]) -> PromptBatch:
        """Every image is asked its own prompt."""
        encoded = []
        labels = []
        for index in indices:
            prompt, _ = self.texts[index]
            encoded.append(encode_prompt(self.tokenizer, prompt, self.text_length))
            labels.append(torch.arange(len(prompt.spans)))
        pairs = [(image, image) for image in range(len(indices))]
        return PromptBatch(encoded, pairs, torch.cat(labels))

    def ranked_predictions(self, predictions: Mapping[int, np.ndarray]) -> list[np.ndarray]:
        """The `ranked` detections of every item; of an image that could not be read there are none."""
        return [ranked(predictions.get(index, NO_DETECTIONS)) for index in range(len(self))]

    def key(self, index: int) -> str:
        """The id of the item's sample, in the files that are submitted."""
        return self.source.key(self.chosen[index])


class PhraseSet(TextRegionSet):
    """Flickr30k Entities' recall of every phrase that has a box: a label is the number of a phrase."""

    FILES: ClassVar[tuple[str, ...]] = ("phrases.json",)

    def text(self, source: PhraseSource, i: int) -> tuple[Prompt, list[Phrase]]:
        text, phrases = source.phrases(i)
        if not phrases:
            raise BadSample("no phrase of the text has a box")
        return Prompt(text, [[phrase.span] for phrase in phrases]), phrases

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        results = []
        sentences = []
        for index, detections in enumerate(self.ranked_predictions(predictions)):
            _, phrases = self.texts[index]
            boxes: list[Any] = []
            scores: list[Any] = []
            for label, phrase in enumerate(phrases):
                of_phrase = detections[detections[:, 5] == label]
                results.append(PhraseDetections(of_phrase[:, :4], phrase.boxes, phrase.types))
                boxes.append(of_phrase[:, :4].tolist())
                scores.append(of_phrase[:, 4].tolist())
            sentences.append({"id": self.key(index), "boxes": boxes, "scores": scores})
        notes = [f"{len(results)} phrases in {len(self)} texts"]
        return Score(phrase_recall(results), {"phrases.json": sentences}, notes)
