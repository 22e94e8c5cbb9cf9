"""Settings of pre-training and retrieval, and the rules between them and the rest of a recipe."""

import dataclasses
import inspect

import pytest

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.settings import Owner, RecipeError
from fiber_cli.tasks.coarse.settings import CoarseSettings, retrieval_metrics
from fiber_cli.tasks.coarse.task import CoarseTask


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["task.itc=0", "task.itm=0", "task.mlm=0", "log.validate_every=null"], "nothing to train"),
        (["task.itc=0"], "hard negatives are drawn by ITC similarity"),
        (["task.itc=0", "task.itm=0", "task.queue_size=8"], "only ITC uses the queue"),
        (["task.itc=0", "task.itm=0"], r"log\.validate_every.*validation measures retrieval"),
    ],
)
def test_objectives_that_do_not_go_together_are_told(changes, message):
    with pytest.raises(RecipeError, match=message):
        resolve_recipe("tiny", changes)


def test_the_settings_of_the_model_are_the_arguments_of_its_module():
    parameters = inspect.signature(CoarseTask).parameters
    of_model = {}
    for setting in dataclasses.fields(CoarseSettings):
        if setting.metadata.get("owner") == Owner.MODEL:
            of_model[setting.name] = setting.default
    assert of_model.keys() == parameters.keys() - {"config"}
    for name, default in of_model.items():
        assert default == parameters[name].default, name


def test_the_best_checkpoint_goes_by_the_objective_that_is_trained():
    assert "itc/ir@1" in retrieval_metrics(CoarseSettings("coarse"))
    assert "itm/tr@10" in retrieval_metrics(CoarseSettings("coarse", itc=0.0, itm_negatives="random"))
