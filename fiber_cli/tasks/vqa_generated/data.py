"""Questions with one of their answers behind them, token by token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from fiber_cli.data.padding import TOKEN_COLUMNS
from fiber_cli.data.readers import Batch, Sample, collate
from fiber_cli.data.records import Question
from fiber_cli.data.source import QuestionSource, Source, require
from fiber_cli.data.text import encode_one
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.token_losses import NO_LABEL, labelled_positions
from fiber_cli.tasks.training_data import ReadingOptions, TrainingData
from fiber_cli.tasks.vqa.data import QuestionReader
from fiber_cli.tasks.vqa.metrics import normalise
from fiber_cli.tasks.vqa_generated.settings import GeneratedVqaSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class GeneratedVqaReader(QuestionReader):
    """Questions with the answer of one annotator, drawn anew each time: `ids` int64 and `mask` bool (L,) of both, the
    question closed by `sep` and the answer too; `labels` int64 (L,), the next token where that is of the answer, -100
    elsewhere. L is text_length + answer_length."""

    NONE_USABLE = "no question with an answer"

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", text_length: int, answer_length: int, image_size: int, augment: str
    ):
        super().__init__(tokenizer, text_length, image_size, augment)
        self.answer_length = answer_length

    def has_answer(self, question: Question) -> bool:
        return any(map(normalise, question.answers))

    def truth(self, question: Question, sample: Sample, rng: np.random.Generator) -> Sample:
        answers = [answer for answer in map(normalise, question.answers) if answer]
        # With its opening token, which the closing one of the question stands for.
        encoded = encode_one(self.tokenizer, answers[rng.integers(len(answers))], self.answer_length + 1)
        answer = encoded["ids"][encoded["mask"]][1:]
        before, after = sample["ids"][sample["mask"]], len(answer)
        ids = torch.cat([before, answer])
        missing = self.text_length + self.answer_length - len(ids)
        labels = torch.full_like(ids, NO_LABEL)
        labels[len(before) - 1 : len(before) - 1 + after] = answer
        return {
            "ids": F.pad(ids, (0, missing), value=self.tokenizer.pad_token_id),
            "mask": F.pad(torch.ones_like(ids, dtype=torch.bool), (0, missing), value=False),
            "labels": F.pad(labels, (0, missing), value=NO_LABEL),
            "truncated": sample["truncated"] + encoded["truncated"],
        }


def training_data(
    sources: Sequence[Source], context: TaskContext[GeneratedVqaSettings], options: ReadingOptions
) -> TrainingData:
    """The questions that have an answer."""
    image_size, _ = context.model.image_size
    reader = GeneratedVqaReader(
        context.tokenizer, context.text_length, context.settings.answer_length, image_size, options.augment
    )
    answerable = [source.answerable(reader.has_answer) for source in require(sources, QuestionSource)]
    return TrainingData(answerable, reader, _collate_labelled, dropped="questions without an answer")


def _collate_labelled(samples: Sequence[Sample]) -> Batch:
    """As `collate`, and `label_positions`: see `labelled_positions`."""
    batch = collate(samples, (*TOKEN_COLUMNS, "labels"))
    batch["label_positions"] = labelled_positions(batch["labels"])
    return batch
