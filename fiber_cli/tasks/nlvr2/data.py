"""Statements with the images that they are about."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from fiber_cli.data.readers import Sample, TextReader, collate, speaks_of_sides
from fiber_cli.data.source import BadSample, Source, StatementSource, require
from fiber_cli.errors import UserError
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.nlvr2.settings import Nlvr2Settings
from fiber_cli.tasks.training_data import ReadingOptions, TrainingData


class StatementReader(TextReader):
    """One of the statements of a sample, with its one or two images.

    Gives `pixels` uint8 (images, 3, H, W), the text, and `labels` int64, 1 for a true statement.
    """

    def __call__(self, source: StatementSource, i: int, rng: np.random.Generator) -> Sample:
        statements = [statement for statement in source.statements(i) if statement.label is not None]
        if not statements:
            raise BadSample("no statement with a label")
        statement = statements[rng.integers(len(statements))]
        flip = not speaks_of_sides(statement.text)
        images = source.images(i, self.at_least)
        pixels = torch.stack([self.transform(image, rng, flip=flip) for image in images])
        sample = self.sample(source, i, statement.text, pixels)
        return sample | {"labels": torch.tensor(int(bool(statement.label)))}


def have_equal_images(sources: Iterable[StatementSource]) -> bool:
    """Whether all statements are about one image, or all about two, so that they fit into one batch."""
    return len({source.images_each for source in sources}) <= 1


def training_data(
    sources: Sequence[Source], context: TaskContext[Nlvr2Settings], options: ReadingOptions
) -> TrainingData:
    """Samples as `StatementReader` makes them."""
    statements = require(sources, StatementSource)
    if not have_equal_images(statements):
        raise UserError("data.train: statements about one image and about two cannot be in one batch; take one kind")
    image_size, _ = context.model.image_size
    reader = StatementReader(context.tokenizer, context.text_length, image_size, options.augment)
    return TrainingData(statements, reader, collate)
