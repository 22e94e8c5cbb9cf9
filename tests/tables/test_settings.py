"""Settings over all recipes."""

import pytest

from fiber_cli.errors import UserError
from fiber_cli.settings import RecipeError
from fiber_cli.tables.settings import check_settings, settings_for


@pytest.mark.parametrize(
    ("recipe", "taken"),
    [
        ("4m", ["model.preset=tiny"]),
        ("refcoco", ["model.preset=tiny", "task.channels=32"]),
        ("caption_mle", ["model.preset=tiny", "task.beam=2"]),
    ],
)
def test_a_recipe_gets_settings_of_another_task(recipe, taken):
    assert settings_for(recipe, ["model.preset=tiny", "task.channels=32", "task.beam=2"]) == taken


def test_a_setting_that_no_recipe_has_is_passed_over():
    check_settings(["task.channels=32"], ["4m", "fine"])
    with pytest.raises(UserError, match=r"--set task\.chanels=32: unknown .*did you mean 'channels'"):
        check_settings(["task.chanels=32"], ["4m", "fine"])
    with pytest.raises(UserError, match=r"--set task\.channels=32"):
        check_settings(["task.channels=32"], ["4m"])
    with pytest.raises(RecipeError, match=r"model\.preset"):
        check_settings(["model.preset=huge"], ["4m"])
    with pytest.raises(RecipeError, match="modl"):
        check_settings(["modl.preset=tiny"], ["4m"])


def test_settings_of_all_tables_are_refused_for_one():
    check_settings(["task.channels=32"], ["4m"], ["fine"])
    with pytest.raises(
        UserError, match=r"unknown setting of a task 'chanels' \(did you mean 'channels'\?\); valid: .*"
    ) as error:
        check_settings(["task.chanels=32"], ["4m"], ["fine"])
    listed = str(error.value).partition("valid: ")[2].split(", ")
    assert listed == sorted(listed)
