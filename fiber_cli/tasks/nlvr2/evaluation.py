"""Evaluation of visual reasoning: accuracy and consistency."""

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from fiber_cli.data.records import Statement
from fiber_cli.data.source import Source, StatementSource, require
from fiber_cli.errors import UserError
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evalset import PicturesWithTextSet, Score, by_index
from fiber_cli.tasks.evaluation import ItemEvaluation
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.items import Item
from fiber_cli.tasks.nlvr2.data import have_equal_images
from fiber_cli.tasks.nlvr2.metrics import accuracies
from fiber_cli.tasks.nlvr2.settings import Nlvr2Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class StatementSet(PicturesWithTextSet):
    """Every statement of the sources."""

    FILES: ClassVar[tuple[str, ...]] = ("predictions.csv",)

    def __init__(
        self,
        sources: Sequence[StatementSource],
        tokenizer: "PreTrainedTokenizerBase",
        text_length: int,
        image_size: int | tuple[int, int],
    ):
        super().__init__(tokenizer, text_length, image_size)
        if not have_equal_images(sources):
            raise UserError("statements about one image and about two cannot be evaluated together; take one kind")
        self.items: list[tuple[StatementSource, int, Statement]] = []
        for source in sources:
            for i in range(len(source)):
                for statement in source.statements(i):
                    self.items.append((source, i, statement))
        self.ids = [statement.identifier for _, _, statement in self.items]

    def read(self, index: int) -> Item:
        source, i, statement = self.items[index]
        pixels = torch.stack([self.transform(image) for image in source.images(i)])
        return {"pixels": pixels, **self.encode(statement.text)}

    def has_truth(self) -> bool:
        return any(statement.label is not None for _, _, statement in self.items)

    def score(self, predictions: dict[int, Any]) -> Score:
        """Accuracy and consistency of the predictions, 1 for true, over the statements that have a label."""
        predicted = io.StringIO()
        lines = csv.writer(predicted, lineterminator="\n")
        count = 0
        answers: list[bool] = []
        labels: list[bool] = []
        groups: list[tuple[str, str]] = []
        types: list[str | None] = []
        for index, prediction in by_index(predictions):
            source, _, statement = self.items[index]
            answer = bool(prediction)
            lines.writerow([statement.identifier, answer])
            count += 1
            if statement.label is not None:
                answers.append(answer)
                labels.append(statement.label)
                groups.append((source.name, statement.group))
                types.append(statement.statement_type)
        notes = []
        without = count - len(labels)
        if without:
            notes.append(f"{without} statements have no label: predicted only")
        return Score(accuracies(answers, labels, groups, types), {"predictions.csv": predicted.getvalue()}, notes)


def evaluation(
    sources: Sequence[Source], context: TaskContext[Nlvr2Settings], options: EvaluationOptions
) -> ItemEvaluation:
    """All statements of the sources."""
    statements = require(sources, StatementSource, "evaluation")
    evalset = StatementSet(statements, context.tokenizer, context.text_length, context.model.image_size)
    return ItemEvaluation("nlvr2", evalset, options)
