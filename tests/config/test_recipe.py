"""The sections: values, types, defaults, and what follows from them."""

import dataclasses
import re
import typing

import pytest
import yaml
from good_recipe import good

from fiber_cli.config.recipe import LogSettings, ModelSettings, Recipe, warmup_steps
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
    ("recipe", "world", "named"),
    [
        ("4m", 6, "set global_batch to 3840 or 4224; as it is it goes with 4 or 8 ranks"),
        ("4m", 7, "set global_batch to 4032 or 4480; as it is it goes with 4 or 8 ranks"),
        (
            "4m",
            100,
            "set global_batch to 6400, or micro_batch to 41 and global_batch to 4100; as it is it goes with 64",
        ),
        ("coco_itc", 3, "set global_batch to 768 or 1152; as it is it goes with 2 or 4 ranks"),
        ("caption_cider", 64, "set global_batch to 1024, or micro_batch to 8; as it is it goes with 32 ranks"),
        ("tiny", 3, "set global_batch to 192, or micro_batch to 43 and global_batch to 129; as it is it goes with 2"),
        ("tiny", 5, "set global_batch to 320, or micro_batch to 26 and global_batch to 130; as it is it goes with 2"),
    ],
)
def test_rank_counts_that_do_not_divide_get_the_nearest_that_do(recipe, world, named):
    runtime = resolve_recipe(recipe, ["task.cider_df=df"] if recipe == "caption_cider" else ()).runtime
    with pytest.raises(RecipeError) as caught:
        runtime.micro_steps(world)
    assert named in str(caught.value)
    offered = re.findall(r"(?:micro_batch to (\d+) and )?global_batch to (\d+)(?: or (\d+))?", str(caught.value))
    for micro_batch, *batches in offered:
        for batch in filter(None, batches):
            changed = dataclasses.replace(runtime, global_batch=int(batch))
            if micro_batch:
                changed = dataclasses.replace(changed, micro_batch=int(micro_batch))
            assert changed.micro_steps(world) >= 1


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
