"""Settings of captioning and the rules between them and the rest of a recipe."""

import dataclasses
import inspect

import pytest

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.settings import Owner, RecipeError, former_names
from fiber_cli.tasks.caption.settings import CaptionSettings, caption_metric_names
from fiber_cli.tasks.caption.task import CaptionTask

#: Arguments of the module that follow from the tokenizer and the text length.
DERIVED = {"max_length", "cls_id", "sep_id", "pad_id", "mask_id"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["task.objective=cider"], r"task\.cider_df.*the reward needs document frequencies"),
        (["task.objective=gold", "runtime.zero_stage=3"], "gold needs whole parameters on every rank"),
        (["task.beam=0"], r"task\.beam"),
    ],
)
def test_settings_that_do_not_go_together_are_told(changes, message):
    with pytest.raises(RecipeError, match=message):
        resolve_recipe("tiny_caption", changes)


def test_the_reward_goes_with_epochs_over_pairs_and_over_images(tmp_path):
    for captions in ("each", "random"):
        changes = ["task.objective=cider", f"data.captions={captions}", f"task.cider_df={tmp_path}"]
        assert resolve_recipe("tiny_caption", changes).data.captions == captions


def test_the_settings_of_the_model_are_the_arguments_of_its_module():
    parameters = inspect.signature(CaptionTask).parameters
    of_model = {}
    for setting in dataclasses.fields(CaptionSettings):
        if setting.metadata.get("owner") == Owner.MODEL:
            of_model[setting.name] = setting.default
    assert of_model.keys() == parameters.keys() - {"config"} - DERIVED
    for name, default in of_model.items():
        assert default == parameters[name].default, name


def test_older_recipes_name_what_is_as_published_otherwise():
    expected = {"gold_published": "gold_as_published", "published_search": "search_as_published"}
    assert former_names(CaptionSettings) == expected


def test_the_best_checkpoint_goes_by_a_metric_of_captions():
    assert "caption/cider" in caption_metric_names(CaptionSettings("caption"))
