"""Settings of visual reasoning: there are none but the name."""

import dataclasses

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.tasks.nlvr2.settings import Nlvr2Settings, nlvr2_metrics


def test_the_name_is_all_there_is():
    assert [setting.name for setting in dataclasses.fields(Nlvr2Settings)] == ["name"]


def test_the_best_checkpoint_goes_by_accuracy_or_consistency():
    for metric in nlvr2_metrics(Nlvr2Settings("nlvr2")):
        assert resolve_recipe("tiny_nlvr2", [f"log.keep_best={metric}"]).log.keep_best == metric
