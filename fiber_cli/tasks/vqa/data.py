"""Questions with soft targets over the list of answers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from fiber_cli.data.readers import Sample, TextReader, collate, speaks_of_sides
from fiber_cli.data.records import Question
from fiber_cli.data.scenes.questions import answers as scene_answers
from fiber_cli.data.source import BadSample, QuestionSource, Source, require
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.training_data import ReadingOptions, TrainingData
from fiber_cli.tasks.vqa.metrics import soft_targets
from fiber_cli.tasks.vqa.settings import VqaSettings
from fiber_cli.tasks.vqa.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class QuestionReader(TextReader, ABC):
    """One image with one of its questions that have a usable answer. Gives `pixels` uint8 (3, H, W), the text, and what
    `truth` does."""

    #: Why an image is no sample.
    NONE_USABLE: ClassVar[str]

    @abstractmethod
    def has_answer(self, question: Question) -> bool:
        """Whether an annotator's answer can be learned."""

    @abstractmethod
    def truth(self, question: Question, sample: Sample, rng: np.random.Generator) -> Sample:
        """What is learned of a question, beside or in place of what the sample has."""

    def __call__(self, source: QuestionSource, i: int, rng: np.random.Generator) -> Sample:
        usable = [question for question in source.questions(i) if self.has_answer(question)]
        if not usable:
            raise BadSample(self.NONE_USABLE)
        question = usable[rng.integers(len(usable))]
        # Where the picture is mirrored, the answer "left" is wrong although the question names no side.
        flip = not speaks_of_sides(" ".join((question.text, *question.answers)))
        pixels = self.transform(source.image(i, self.at_least), rng, flip=flip)
        sample = self.sample(source, i, question.text, pixels)
        return sample | self.truth(question, sample, rng)


class VqaReader(QuestionReader):
    """Questions with an answer in the vocabulary, with `targets` float32 (labels,)."""

    NONE_USABLE = "no question with an answer in the vocabulary"

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        text_length: int,
        image_size: int,
        augment: str,
        vocabulary: Sequence[str],
    ):
        super().__init__(tokenizer, text_length, image_size, augment)
        self.label_of = {answer: label for label, answer in enumerate(vocabulary)}

    def has_answer(self, question: Question) -> bool:
        return not self.label_of.keys().isdisjoint(soft_targets(question.answers))

    def truth(self, question: Question, sample: Sample, rng: np.random.Generator) -> Sample:
        """What each label is worth."""
        targets = torch.zeros(len(self.label_of))
        for answer, worth in soft_targets(question.answers).items():
            if answer in self.label_of:
                targets[self.label_of[answer]] = worth
        return {"targets": targets}


def training_data(
    sources: Sequence[Source], context: TaskContext[VqaSettings], options: ReadingOptions
) -> TrainingData:
    """The questions that have an answer in the vocabulary; the labels are the vocabulary."""
    answers = context.settings.answers
    vocabulary = scene_answers() if answers is None else read_vocabulary(answers)
    reader = VqaReader(context.tokenizer, context.text_length, context.model.image_size[0], options.augment, vocabulary)
    answerable = [source.answerable(reader.has_answer) for source in require(sources, QuestionSource)]
    return TrainingData(
        answerable, reader, collate, tuple(vocabulary), dropped="questions without an answer in the vocabulary"
    )
