"""A picture with a statement about it, true or false, or about another picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from fiber_cli.tasks.entailment.settings import EntailmentSettings

from fiber_cli.data.readers import Sample, TextReader, collate
from fiber_cli.data.source import BadSample, Source, StatementSource, require
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.training_data import ReadingOptions, TrainingData

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTRADICTION, ENTAILMENT, NEUTRAL = range(3)


class EntailmentReader(TextReader):
    """Gives `pixels` uint8 (3, H, W), the text, and `labels` int64.

    neutral: chance of a statement of another sample.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        text_length: int,
        image_size: int,
        augment: str,
        *,
        neutral: float,
    ):
        super().__init__(tokenizer, text_length, image_size, augment)
        self.neutral = neutral

    def __call__(self, source: StatementSource, i: int, rng: np.random.Generator) -> Sample:
        is_neutral = rng.random() < self.neutral
        statements = source.statements((i + 1) % len(source) if is_neutral else i)
        if not statements:
            raise BadSample("no statement")
        statement = statements[rng.integers(len(statements))]
        label = NEUTRAL if is_neutral else int(bool(statement.label))
        image = source.images(i, self.at_least)[0]
        sample = self.sample(source, i, statement.text, self.transform(image, rng, flip=False))
        return sample | {"labels": torch.tensor(label)}


def training_data(
    sources: Sequence[Source], context: TaskContext[EntailmentSettings], options: ReadingOptions
) -> TrainingData:
    image_size, _ = context.model.image_size
    neutral = context.settings.neutral
    reader = EntailmentReader(context.tokenizer, context.text_length, image_size, options.augment, neutral=neutral)
    return TrainingData(require(sources, StatementSource), reader, collate)
