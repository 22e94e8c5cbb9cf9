"""Evaluation of generated answers by the official accuracy of VQA."""

from collections.abc import Sequence

from fiber_cli.data.source import QuestionSource, Source, require
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evaluation import ItemEvaluation
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.vqa.evaluation import VqaSet
from fiber_cli.tasks.vqa_generated.settings import GeneratedVqaSettings


def evaluation(
    sources: Sequence[Source], context: TaskContext[GeneratedVqaSettings], options: EvaluationOptions
) -> ItemEvaluation:
    """All questions of the sources."""
    questions = require(sources, QuestionSource, "evaluation")
    evalset = VqaSet(questions, context.tokenizer, context.text_length, context.model.image_size, vocabulary=None)
    return ItemEvaluation("vqa_generated", evalset, options)
