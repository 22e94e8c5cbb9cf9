"""Evaluation of visual question answering by the official accuracy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fiber_cli.data.columns import Texts
from fiber_cli.data.records import Question
from fiber_cli.data.source import QuestionSource, Source, require
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evalset import PicturesWithTextSet, Score, by_index
from fiber_cli.tasks.evaluation import ItemEvaluation
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.items import Item
from fiber_cli.tasks.vqa.answers import answer_texts
from fiber_cli.tasks.vqa.metrics import FULL_AGREEMENT, accuracies, accuracy
from fiber_cli.tasks.vqa.settings import VqaSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class VqaSet(PicturesWithTextSet):
    """Every question of the sources, those without an answer in the vocabulary included. vocabulary: the answers that
    are chosen from; None where they are generated."""

    FILES: ClassVar[tuple[str, ...]] = ("predictions.json",)

    def __init__(
        self,
        sources: Sequence[QuestionSource],
        tokenizer: "PreTrainedTokenizerBase",
        text_length: int,
        image_size: int | tuple[int, int],
        vocabulary: Sequence[str] | None,
    ):
        super().__init__(tokenizer, text_length, image_size)
        self.vocabulary = vocabulary
        self.sources = list(sources)
        self.questions: list[Question] = []
        ids = []
        places = []
        for number, source in enumerate(sources):
            for i in range(len(source)):
                for question in source.questions(i):
                    self.questions.append(question)
                    ids.append(f"{source.name}/{question.question_id}")
                    places.append((number, i))
        # What is read by is in few arrays, which workers share.
        self.ids = Texts(ids)
        self.texts = Texts(question.text for question in self.questions)
        self.places = np.array(places, np.int64).reshape(-1, 2)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"questions": []}  # scored by, which workers do not

    def read(self, index: int) -> Item:
        number, i = self.places[index].tolist()
        pixels = self.transform(self.sources[number].image(i))
        return {"pixels": pixels, **self.encode(self.texts[index])}

    def has_truth(self) -> bool:
        return any(question.answers for question in self.questions)

    def score(self, predictions: dict[int, Any]) -> Score:
        """Official accuracy of the predictions, see `answer_texts`, over the questions that have annotators."""
        submitted = []
        results = []
        few = 0
        ordered = by_index(predictions)
        answers = answer_texts([row for _, row in ordered], self.tokenizer, self.vocabulary)
        for (index, _), answer in zip(ordered, answers, strict=True):
            question = self.questions[index]
            submitted.append({"question_id": question.question_id, "answer": answer})
            if question.answers:
                few += len(question.answers) < FULL_AGREEMENT
                correct = accuracy(answer, question.answers)
                results.append((correct, question.answer_type, question.question_type))
        notes = []
        without = len(submitted) - len(results)
        if without:
            notes.append(f"{without} questions have no annotations: predicted only")
        if few:
            notes.append(
                f"{few} questions have fewer than {FULL_AGREEMENT} annotators: no answer to them reaches 100% of the "
                "official accuracy, which wants three others who agree"
            )
        return Score(accuracies(results), {"predictions.json": submitted}, notes)


def evaluation(
    sources: Sequence[Source], context: TaskContext[VqaSettings], options: EvaluationOptions
) -> ItemEvaluation:
    """All questions of the sources."""
    assert context.labels is not None, "config.json of a VQA checkpoint has its answers"
    questions = require(sources, QuestionSource, "evaluation")
    evalset = VqaSet(questions, context.tokenizer, context.text_length, context.model.image_size, context.labels)
    return ItemEvaluation("vqa", evalset, options)
