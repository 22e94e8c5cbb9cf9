"""Settings of VQA."""

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.settings import Owner, owned
from fiber_cli.tasks.vqa.settings import VqaSettings, vqa_metrics


def test_the_path_of_the_answers_is_of_the_run_alone():
    settings = VqaSettings("vqa", answers="/some/file.json")
    assert owned(settings, Owner.RUN) == {"answers": "/some/file.json"}
    assert owned(settings, Owner.MODEL, Owner.READER) == {}


def test_the_best_checkpoint_goes_by_accuracy():
    assert vqa_metrics(VqaSettings("vqa")) == ("vqa/accuracy",)
    assert resolve_recipe("tiny_vqa", ["log.keep_best=vqa/accuracy"]).log.keep_best == "vqa/accuracy"
