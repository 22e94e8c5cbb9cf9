"""Settings: whose they are, what they are called, and what becomes of them."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import pytest

from fiber_cli.errors import EXIT_USAGE, UserError
from fiber_cli.settings import Owner, RecipeError, SourceSettings, TaskSettings, former_names, option, owned


@dataclass(frozen=True)
class Juggling(TaskSettings):
    name: Literal["juggling"]
    balls: int = option("How many.", 3, ge=1, owner=Owner.MODEL)
    music: str | None = option("A file.", None, path=True, owner=Owner.RUN, formerly="song")
    speeds: tuple[float, ...] = option("Of the throws.", (1.0,), owner=Owner.READER)
    props: dict[str, str] = option("By name.", factory=dict, owner=Owner.MODEL)


@dataclass(frozen=True)
class Circus(SourceSettings):
    kind: Literal["circus"]
    tent: str = option("A folder.", path=True)
    seats: int | None = option("How many.", None, ge=1)


def test_an_option_keeps_its_meaning_limits_and_owner():
    balls, music = dataclasses.fields(Juggling)[1:3]
    assert balls.default == 3
    assert balls.metadata == {"doc": "How many.", "owner": Owner.MODEL, "formerly": None, "ge": 1}
    assert music.metadata["path"] is True
    assert Juggling("juggling").props == {}
    assert Juggling("juggling").props is not Juggling("juggling").props


def test_an_option_without_a_default_is_required():
    with pytest.raises(TypeError, match="tent"):
        Circus(kind="circus")


def test_settings_are_sorted_by_their_owner():
    settings = Juggling("juggling", balls=5, music="a.mp3")
    assert owned(settings, Owner.MODEL) == {"balls": 5, "props": {}}
    assert owned(settings, Owner.RUN) == {"music": "a.mp3"}
    assert owned(settings, Owner.MODEL, Owner.READER) == {"balls": 5, "speeds": (1.0,), "props": {}}
    assert owned(settings) == {}


def test_former_names_lead_to_present_ones():
    assert former_names(Juggling) == {"song": "music"}
    assert former_names(Circus) == {}


def test_arguments_of_a_source_leave_out_kind_weight_and_null():
    assert Circus(kind="circus", tent="t", weight=2.0).arguments() == {"tent": "t"}
    assert Circus(kind="circus", tent="t", seats=4).arguments() == {"tent": "t", "seats": 4}
    assert Circus(kind="circus", tent="t").weight == 1.0


def test_a_recipe_error_is_an_error_of_usage():
    assert issubclass(RecipeError, UserError)
    assert RecipeError("x").exit_code == EXIT_USAGE
