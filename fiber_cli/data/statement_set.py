"""Statements about one or two images to samples, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fiber_cli.data.evalset import EvalSet, Score
from fiber_cli.data.loader import AUGMENT, speaks_of_sides
from fiber_cli.data.source import BadSample, Source, sample_id
from fiber_cli.data.statements import Statement
from fiber_cli.data.text import encode
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError
from fiber_cli.metrics.nlvr2 import accuracies


class StatementReader:
    """One of the statements of a sample, with its one or two images.

    Gives `pixels` uint8 (images, 3, H, W); `ids` int64 and `mask` bool (L,); `labels` int64, 1 for a true statement.
    """

    def __init__(self, tokenizer, text_length: int, image_size: int, augment: str):
        self.tokenizer, self.text_length = tokenizer, text_length
        self.transform, self.least = AUGMENT[augment](image_size), 2 * image_size

    def __call__(self, source: Source, i: int, rng: np.random.Generator) -> dict[str, Any]:
        statements = [statement for statement in source.statements(i) if statement.label is not None]
        if not statements:
            raise BadSample("no statement with a label")
        text, label, *_ = statements[rng.integers(len(statements))]
        flip = not speaks_of_sides(text)
        ids, mask, truncated = encode(self.tokenizer, [text], self.text_length)
        return {
            "pixels": torch.stack([self.transform(image, rng, flip=flip) for image in source.images(i, self.least)]),
            "ids": ids[0],
            "mask": mask[0],
            "labels": torch.tensor(int(label)),
            "sample_ids": sample_id(source, i),
            "truncated": truncated,
        }


class StatementSet(EvalSet):
    """Every statement of the sources."""

    def __init__(self, sources: Sequence[Source], tokenizer, text_length: int, image_size: int | tuple[int, int]):
        self.tokenizer, self.text_length = tokenizer, text_length
        self.transform, self.left_out = EvalTransform(image_size), []
        self.items: list[tuple[Source, int, Statement]] = [
            (source, i, each) for source in sources for i in range(len(source)) for each in source.statements(i)
        ]
        if len({source.images_each for source in sources}) > 1:
            raise UserError("statements about one image and about two cannot be evaluated together; take one kind")
        self.ids = [statement.identifier for _, _, statement in self.items]

    def read(self, index: int) -> dict[str, Any]:
        source, i, statement = self.items[index]
        pixels = torch.stack([self.transform(image) for image in source.images(i)])
        ids, mask, truncated = encode(self.tokenizer, [statement.text], self.text_length)
        return {"pixels": pixels, "ids": ids[0], "mask": mask[0], "truncated": truncated}

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        """Accuracy and consistency of the predictions, 1 for true, over the statements that have a label."""
        given = [(*self.items[index], bool(row)) for index, row in sorted(predictions.items())]
        known = [(answer, each.label, (source.name, each.group)) for source, _, each, answer in given
                 if each.label is not None]  # fmt: skip
        metrics = accuracies(*zip(*known)) if known else {}
        files = {"predictions.csv": "".join(f"{each.identifier},{answer}\n" for _, _, each, answer in given)}
        unknown = len(given) - len(known)
        return Score(metrics, files, [f"{unknown} statements have no label: predicted only"] if unknown else [])
