"""Settings of region-level recipes and the rules between them and the rest of a recipe."""

import dataclasses

import pytest

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.settings import Owner, RecipeError, former_names
from fiber_cli.tasks.regions.settings import FineSettings, RefexpSettings

TWO_COCO_FILES = "data.val=[{kind: coco, json: a, images: a}, {kind: coco, json: b, images: b}]"
TWO_MDETR_FILES = "data.val=[{kind: mdetr, json: a, images: a}, {kind: mdetr, json: b, images: b}]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.augment=randaugment", "have their own transform"),
        ("data.captions=each", "captions with boxes come one by one"),
        ("task.short_sides=[]", r"task\.short_sides: names no size"),
        ("task.control=[0.5, 0.5, 0.5]", "is more than 1 in all"),
        (TWO_COCO_FILES, "go by odinw/ap"),
        ("log.keep_best=odinw/ap", "is the mean of several sets"),
    ],
)
def test_settings_that_do_not_go_together_are_told(change, message):
    with pytest.raises(RecipeError, match=message):
        resolve_recipe("tiny_fine", [change])


def test_the_best_of_several_detection_sets_goes_by_their_mean():
    several = "data.val=[{kind: scene_detection, split: val}, {kind: scene_detection, split: test}]"
    assert resolve_recipe("tiny_fine", [several, "log.keep_best=odinw/ap"]).log.keep_best == "odinw/ap"


def test_a_metric_of_several_sets_of_phrases_is_not_one_number():
    with pytest.raises(RecipeError, match="of several sets is not one number"):
        resolve_recipe("tiny_fine", [TWO_MDETR_FILES, "log.keep_best=grounding/any_box/r@1"])


def test_older_recipes_name_the_cleaning_of_names_otherwise():
    assert former_names(FineSettings) == {"published_names": "names_as_published"}
    assert resolve_recipe("tiny_fine", ["task.published_names=true"]).task.names_as_published


def test_expressions_are_not_mirrored_by_default():
    """Half of them would become untrue: they tell left from right."""
    assert FineSettings(name="fine").flip == 0.5
    assert RefexpSettings(name="refexp").flip == 0


def test_the_settings_of_the_model_are_the_arguments_of_its_module():
    import inspect

    from fiber_cli.tasks.regions.task import RegionTask

    parameters = inspect.signature(RegionTask).parameters
    of_model = {
        field.name: field for field in dataclasses.fields(FineSettings) if field.metadata.get("owner") == Owner.MODEL
    }
    assert of_model.keys() == parameters.keys() - {"config"}
    for name, field in of_model.items():
        assert field.default == parameters[name].default, name
