"""Whether a run may go on with a recipe."""

from pathlib import Path
from typing import Any

import yaml

from fiber_cli.config.recipe import Recipe
from fiber_cli.config.resolve import parse_recipe
from fiber_cli.errors import UserError
from fiber_cli.parsing import parse_yaml
from fiber_cli.text_files import read_text

#: Settings that may differ between a run and its continuation.
FREE_ON_RESUME = ("log.", "data.workers", "name")


def check_same_recipe(recipe: Recipe, file: Path) -> None:
    """Raises UserError with every setting that differs from the run's, whose recipe is in `file`."""
    differing = [each for each in differing_settings(recipe, file) if not each.startswith(FREE_ON_RESUME)]
    if differing:
        raise UserError(
            f"--resume continues a run with the same recipe; {len(differing)} settings differ from {file} "
            "(give the same ones, or start another run with --init-from):",
            *differing,
        )


def differing_settings(recipe: Recipe, file: Path) -> list[str]:
    """Every setting that differs from the run's, whose recipe is in `file`, with both values. Raises UserError where it
    cannot be read.

    The file is read as any recipe is: a setting that it does not know has its default, and one that it has under a
    former name is the same setting.
    """
    try:
        text = read_text(file)
        stored = _flat(parse_recipe(text, str(file), _in_present_words(text)))
    except OSError as error:
        raise _unreadable(file, error.strerror or str(error)) from error
    except UserError as error:
        raise _unreadable(file, " ".join(str(error).split())) from error
    given = _flat(recipe)
    differing = []
    for key in sorted(stored.keys() | given.keys()):
        if stored.get(key) != given.get(key):
            differing.append(f"{key}: {stored.get(key)!r} in the run, {given.get(key)!r} now")
    return differing


def _in_present_words(text: str) -> list[str]:
    """What is put over a stored recipe of the time when the preset `mini` was called `small`: stored recipes have
    every setting, and `model.window` came with the present `small`."""
    try:
        stored = parse_yaml(text)
    except yaml.YAMLError:
        return []  # parsing the recipe says where
    if not isinstance(stored, dict):
        return []
    model = stored.get("model")
    if isinstance(model, dict) and model.get("preset") == "small" and "window" not in model:
        return ["model.preset=mini"]
    return []


def _unreadable(file: Path, reason: str) -> UserError:
    return UserError(
        f"{file} cannot be read ({reason}), so that the run cannot be continued safely; put back the file that the run "
        "was started with"
    )


def recipe_facts(recipe: Recipe) -> dict[str, str]:
    """Every setting with its value in words, those of sources too, for what all ranks must have the same."""
    facts: dict[str, str] = {}
    for name, value in _flat(recipe).items():
        if name in ("data.train", "data.val"):
            for number, source in enumerate(value):
                facts |= {f"{name}[{number}].{setting}": repr(given) for setting, given in source.items()}
        else:
            facts[name] = repr(value)
    return facts


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Dotted name → value, as YAML has it."""
    flat: dict[str, Any] = {}

    def add(tree: dict[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                add(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    add(parse_yaml(recipe.to_yaml()), "")
    return flat
