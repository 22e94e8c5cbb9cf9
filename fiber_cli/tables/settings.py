"""Settings that are put over all recipes of the chain."""

import dataclasses
from collections.abc import Iterable, Sequence
from functools import cache

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.config.strict import unknown
from fiber_cli.errors import UserError

_TASK = "task."


def task_key(setting: str) -> str | None:
    """The name of a setting of tasks in `task.name=value`; None of other sections."""
    path = setting.partition("=")[0].strip()
    if not path.startswith(_TASK):
        return None
    return path.removeprefix(_TASK).partition(".")[0]


@cache
def task_settings(recipe: str) -> tuple[str, ...]:
    """The names of the settings that the task of a shipped recipe has."""
    return tuple(setting.name for setting in dataclasses.fields(resolve_recipe(recipe).task))


def settings_for(recipe: str, settings: Sequence[str]) -> list[str]:
    """Those of the settings that a recipe takes: of its task's only what that has, of the other sections all."""
    names = task_settings(recipe)
    taken = []
    for setting in settings:
        key = task_key(setting)
        if key is None or key in names:
            taken.append(setting)
    return taken


def check_settings(settings: Sequence[str], recipes: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raises UserError for a setting that none of the recipes has, and none of the others, which are not asked for now,
    and RecipeError for one that a recipe refuses."""
    known: set[str] = set()
    for recipe in recipes:
        resolve_recipe(recipe, settings_for(recipe, settings))
        known.update(task_settings(recipe))
    for recipe in others:
        known.update(task_settings(recipe))
    for setting in settings:
        key = task_key(setting)
        if key is not None and key not in known:
            raise UserError(f"--set {setting}: {unknown('setting of a task', key, sorted(known))}")
