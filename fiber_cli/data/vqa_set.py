"""Questions to samples: for training, with soft targets, and for evaluation by the official accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fiber_cli.data.evalset import EvalSet, Score
from fiber_cli.data.loader import AUGMENT, speaks_of_sides
from fiber_cli.data.source import BadSample, Source, read_image, sample_id
from fiber_cli.data.text import encode
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.data.vqa import VqaQuestion
from fiber_cli.metrics.vqa import accuracies, accuracy, soft_targets


class VqaReader:
    """One image with one of its questions that have an answer in the vocabulary.

    Gives `pixels` uint8 (3, H, W); `ids` int64 and `mask` bool (L,); `targets` float32 (labels,).
    """

    def __init__(self, tokenizer, text_length: int, image_size: int, augment: str, vocabulary: Sequence[str]):
        self.tokenizer, self.text_length = tokenizer, text_length
        self.transform, self.least = AUGMENT[augment](image_size), 2 * image_size
        self.label = {answer: number for number, answer in enumerate(vocabulary)}

    def __call__(self, source: Source, i: int, rng: np.random.Generator) -> dict[str, Any]:
        scores = [(question, soft_targets(question.answers)) for question in source.questions(i)]
        usable = [(question, found) for question, found in scores if self.label.keys() & found.keys()]
        if not usable:
            raise BadSample("no question with an answer in the vocabulary")
        question, found = usable[rng.integers(len(usable))]
        targets = torch.zeros(len(self.label))
        for answer in self.label.keys() & found.keys():
            targets[self.label[answer]] = found[answer]
        # Where the picture is mirrored, the answer "left" is wrong although the question names no side.
        flip = not speaks_of_sides(" ".join((question.text, *question.answers)))
        pixels = self.transform(read_image(source, i, self.least), rng, flip=flip)
        ids, mask, truncated = encode(self.tokenizer, [question.text], self.text_length)
        return {
            "pixels": pixels,
            "ids": ids[0],
            "mask": mask[0],
            "targets": targets,
            "sample_ids": sample_id(source, i),
            "truncated": truncated,
        }


class VqaSet(EvalSet):
    """Every question of the sources, those without an answer in the vocabulary included."""

    def __init__(
        self,
        sources: Sequence[Source],
        tokenizer,
        text_length: int,
        image_size: int | tuple[int, int],
        vocabulary: Sequence[str],
    ):
        self.tokenizer, self.text_length, self.vocabulary = tokenizer, text_length, vocabulary
        self.transform, self.left_out = EvalTransform(image_size), []
        self.items: list[tuple[Source, int, VqaQuestion]] = [
            (source, i, question) for source in sources for i in range(len(source)) for question in source.questions(i)
        ]
        self.ids = [f"{source.name}/{question.question_id}" for source, _, question in self.items]

    def read(self, index: int) -> dict[str, Any]:
        source, i, question = self.items[index]
        ids, mask, truncated = encode(self.tokenizer, [question.text], self.text_length)
        return {"pixels": self.transform(source.image(i)), "ids": ids[0], "mask": mask[0], "truncated": truncated}

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        """Official accuracy of the predicted labels, over the questions that have annotators."""
        given = [(self.items[index][2], self.vocabulary[int(row)]) for index, row in sorted(predictions.items())]
        known = [(question, answer) for question, answer in given if question.answers]
        metrics = accuracies(
            (accuracy(answer, question.answers), question.answer_type, question.question_type)
            for question, answer in known
        )
        files = {"predictions.json": [{"question_id": q.question_id, "answer": answer} for q, answer in given]}
        unknown = len(given) - len(known)
        return Score(metrics, files, [f"{unknown} questions have no annotations: predicted only"] if unknown else [])
