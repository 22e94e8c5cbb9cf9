"""The sections: values, types, defaults, and what follows from them."""

import dataclasses
import math
import typing

import pytest
import yaml
from good_recipe import good

from fiber_cli.config.recipe import LogSettings, ModelSettings, Recipe, RuntimeSettings, warmup_steps
from fiber_cli.config.resolve import resolve_recipe, shipped_recipes
from fiber_cli.config.strict import one_of
from fiber_cli.data.sources import FORMATS, SettingsByKind
from fiber_cli.data.sources.scenes import ScenesSettings
from fiber_cli.errors import UserError
from fiber_cli.model.config import PRESETS
from fiber_cli.settings import RecipeError
from fiber_cli.tasks import TASKS, declarations


def test_values_types_and_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = good()
    assert recipe.optim.lr == 0.001
    assert type(recipe.optim.lr) is float
    assert recipe.optim.steps == 100
    assert recipe.optim.epochs is None
    assert recipe.optim.betas == (0.9, 0.98)
    assert recipe.task.itm_negatives == "hard"
    assert type(recipe.task.mlm) is float
    assert recipe.data.train[0] == ScenesSettings(kind="scenes", count=100)
    assert recipe.data.train[1].shards == (str(tmp_path / "a.tar"), str(tmp_path / "b/*.tar"))
    assert recipe.log == LogSettings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.optim.lr = 1.0


def test_resolved_yaml_reads_back_equal_from_anywhere(tmp_path, monkeypatch):
    for path in shipped_recipes().values():
        recipe = resolve_recipe(str(path), ["deepspeed.zero_optimization.reduce_bucket_size=5e8"])
        file = tmp_path / "recipe.yaml"
        file.write_text(recipe.to_yaml())
        monkeypatch.chdir(tmp_path)
        assert resolve_recipe(str(file)) == recipe
        monkeypatch.undo()
        assert recipe.name == path.stem
        assert yaml.safe_load(recipe.to_yaml())["runtime"]["seed"] == 0


def test_global_batch_must_divide_and_the_error_names_values_that_do():
    recipe = good()
    assert [recipe.runtime.micro_steps(world) for world in (1, 2, 4)] == [4, 2, 1]
    with pytest.raises(RecipeError, match="set global_batch to 24 or 48") as caught:
        recipe.runtime.micro_steps(3)
    assert isinstance(caught.value, UserError)
    assert "or micro_batch" not in str(caught.value)
    with pytest.raises(RecipeError, match="set global_batch to 64, or micro_batch to 4"):
        recipe.runtime.micro_steps(8)
    assert good("runtime.micro_batch=4").runtime.micro_steps(8) == 1


@pytest.mark.parametrize(
    ("recipe", "world", "micro_batch", "global_batch"),
    [
        ("4m", 6, 62, 4092),
        ("4m", 12, 57, 4104),
        ("4m", 24, 57, 4104),
        ("4m", 48, 43, 4128),
        ("4m", 96, 43, 4128),
        ("4m", 128, 32, 4096),
        ("coco_itc", 3, 114, 1026),
        ("caption_cider", 64, 8, 512),
        ("tiny", 3, 43, 129),
        ("tiny", 200, 1, 200),
    ],
)
def test_rank_counts_that_do_not_divide_are_refused_or_get_a_batch_far_from_the_recipes(
    recipe, world, micro_batch, global_batch
):
    asked = resolve_recipe(recipe, ["task.cider_df=df"] if recipe == "caption_cider" else ()).runtime
    fitted = asked.on_ranks(world)
    assert (fitted.micro_batch, fitted.global_batch) == (micro_batch, global_batch)
    assert fitted.micro_steps(world) >= 1
    assert fitted.on_ranks(world) == fitted


@pytest.mark.parametrize("recipe", ["4m", "fine", "vqav2", "nlvr2", "coco_detection"])
def test_a_nearer_batch_takes_micro_batches_of_a_few(recipe):
    asked = resolve_recipe(recipe, ()).runtime
    for world in range(1, 129):
        fewest = math.ceil(asked.global_batch / world / asked.micro_batch)
        assert asked.on_ranks(world).micro_steps(world) <= 2 * fewest


@pytest.mark.parametrize("world", [1, 2, 4, 8, 16, 32, 64])
def test_rank_counts_that_divide_get_another_batch(world):
    runtime = resolve_recipe("4m", ()).runtime
    assert runtime.on_ranks(world) == runtime


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 7, 64])
@pytest.mark.parametrize("share", [1, 2, 10, 13, 60])
@pytest.mark.parametrize("world", [2, 3, 5])
def test_micro_batches_grow_or_the_batch_is_not_a_near_one(micro_batch, share, world):
    asked = RuntimeSettings(micro_batch=micro_batch, global_batch=micro_batch * share)
    fitted = asked.on_ranks(world)
    assert fitted.micro_batch <= micro_batch
    assert fitted.global_batch % (fitted.micro_batch * world) == 0
    largest_step = max(world, asked.global_batch / 4)
    assert abs(fitted.global_batch - asked.global_batch) <= largest_step


def test_warm_up_is_a_share_or_steps():
    assert warmup_steps(0.1, 250) == 25
    assert warmup_steps(7, 250) == 7
    with pytest.raises(RecipeError, match=r"optim.warmup: 250 must end before the run's 250 steps do"):
        warmup_steps(250, 250)


def test_presets_and_tasks_are_those_of_the_program():
    assert set(typing.get_args(ModelSettings.__annotations__["preset"])) == PRESETS.keys()
    choices = {field.name: one_of(field.type) for field in dataclasses.fields(Recipe)}
    assert list(choices["task"].forms) == list(TASKS)


def sections() -> list[type]:
    fields = [field.type for field in dataclasses.fields(Recipe)]
    plain = [kind for kind in fields if dataclasses.is_dataclass(kind)]
    return [*plain, *(declaration.settings for declaration in declarations()), *SettingsByKind().values()]


@pytest.mark.parametrize("section", [*dict.fromkeys(sections())], ids=lambda section: section.__name__)
def test_every_field_is_documented(section):
    for field in dataclasses.fields(section):
        is_tag = field.name in ("kind", "name") and typing.get_origin(field.type) is typing.Literal
        assert is_tag or field.metadata["doc"].endswith("."), field.name


def test_forms_are_told_apart_by_their_first_field():
    for settings in {declaration.settings for declaration in declarations()}:
        assert dataclasses.fields(settings)[0].name == "name"
    assert list(SettingsByKind()) == list(FORMATS)
