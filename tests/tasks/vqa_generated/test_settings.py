"""Settings of VQA by generation."""

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.settings import Owner, owned
from fiber_cli.tasks.vqa_generated.settings import GeneratedVqaSettings, generated_vqa_metrics


def test_the_length_of_answers_and_the_search_are_not_kept_with_the_model():
    settings = GeneratedVqaSettings("vqa_generated", answer_length=7, beam=2)
    assert owned(settings, Owner.MODEL) == {"answer_length": 7, "beam": 2}


def test_the_best_checkpoint_goes_by_accuracy():
    assert generated_vqa_metrics(GeneratedVqaSettings("vqa_generated")) == ("vqa/accuracy",)
    recipe = resolve_recipe("tiny_vqa_generated", ["log.keep_best=vqa/accuracy"])
    assert recipe.log.keep_best == "vqa/accuracy"
