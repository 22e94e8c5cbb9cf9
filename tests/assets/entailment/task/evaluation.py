"""Evaluation of visual entailment: every statement about its own picture, and one about another."""

from collections.abc import Sequence
from typing import Any

from fiber_cli.tasks.entailment.data import NEUTRAL
from fiber_cli.tasks.entailment.metrics import accuracy
from fiber_cli.tasks.entailment.settings import EntailmentSettings

from fiber_cli.data.source import Source, StatementSource, require
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evalset import PicturesWithTextSet, Score, by_index
from fiber_cli.tasks.evaluation import ItemEvaluation
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.items import Item


class EntailmentSet(PicturesWithTextSet):
    """(source, picture, text, label) of every statement."""

    def __init__(self, sources: Sequence[StatementSource], context: TaskContext[EntailmentSettings]):
        super().__init__(context.tokenizer, context.text_length, context.model.image_size)
        self.items: list[tuple[StatementSource, int, str, int]] = []
        for source in sources:
            for i in range(len(source)):
                for statement in source.statements(i):
                    self.items.append((source, i, statement.text, int(bool(statement.label))))
                other = source.statements((i + 1) % len(source))[0]
                self.items.append((source, i, other.text, NEUTRAL))
        self.ids = [f"{source.name}/{number}" for number, (source, *_) in enumerate(self.items)]

    def read(self, index: int) -> Item:
        source, i, text, _ = self.items[index]
        return {"pixels": self.transform(source.images(i)[0]), **self.encode(text)}

    def score(self, predictions: dict[int, Any]) -> Score:
        answers = [int(answer) for _, answer in by_index(predictions)]
        labels = [self.items[index][3] for index, _ in by_index(predictions)]
        return Score(accuracy(answers, labels), {"predictions.json": answers})


def evaluation(
    sources: Sequence[Source], context: TaskContext[EntailmentSettings], options: EvaluationOptions
) -> ItemEvaluation:
    evalset = EntailmentSet(require(sources, StatementSource, "evaluation"), context)
    return ItemEvaluation("entailment", evalset, options)
