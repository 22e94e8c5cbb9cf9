"""Recipes: one YAML file, with `section.key=value` from the command line put over it, becomes a `Recipe`.

`resolve_recipe` is the one way in. All errors come at once, each with place, key, value and the nearest
valid name.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fiber_cli.config.recipe import AnySource, Recipe
from fiber_cli.config.rules import broken_rules
from fiber_cli.config.strict import Builder, one_of, unknown, whole_forms
from fiber_cli.config.yaml_nodes import COMMAND_LINE, empty_mapping, is_null, override, reason
from fiber_cli.parsing import compose
from fiber_cli.printing import say
from fiber_cli.regular_files import read_regular
from fiber_cli.remote_paths import is_remote
from fiber_cli.settings import RecipeError, SourceSettings, TaskSettings
from fiber_cli.text_files import NotText, decode_text, lines_of

Settings = TypeVar("Settings", SourceSettings, TaskSettings)


def parse_recipe(text: str, where: str, overrides: Sequence[str] = (), name: str = "recipe") -> Recipe:
    """A recipe from YAML; `where` is what errors call its source. Raises RecipeError with every problem."""
    root = _compose(text, where)
    problems = []
    for assignment in overrides:
        problem = override(root, assignment)
        if problem is not None:
            problems.append(problem)
    builder = Builder(_section_of_keys())
    recipe = builder.build(Recipe, root, "")
    problems += builder.errors
    if recipe is not None:
        recipe = _with_own_tokenizer(recipe, builder)
        for key, message in broken_rules(recipe, builder.bad):
            # A key that is not given is blamed on its section.
            at = builder.places.get(key) or builder.places.get(key.partition(".")[0], where)
            problems.append(f"{at}: {message}")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise RecipeError(f"{count} in the recipe:", *problems)
    if "name" not in builder.places:
        recipe = dataclasses.replace(recipe, name=name)
    return _absolute(recipe)


def _with_own_tokenizer(recipe: Recipe, builder: Builder) -> Recipe:
    """The recipe with the tokenizer of the text weights that it names, where it names no other beside them: one in the
    file is that of the weights in the file, and not of others on the command line."""
    if "model" in builder.bad or not recipe.model.roberta:
        return recipe
    place = builder.places.get("model.tokenizer")
    are_other_weights = builder.places.get("model.roberta") == COMMAND_LINE
    if place is not None and (place == COMMAND_LINE or not are_other_weights):
        return recipe
    model = dataclasses.replace(recipe.model, tokenizer=recipe.model.roberta)
    return dataclasses.replace(recipe, model=model)


def _compose(text: str, where: str) -> yaml.Node:
    try:
        root = compose(text, where)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{where}:{line}: not valid YAML: {reason(error)}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}:1: not valid YAML: {reason(error)}") from None
    return empty_mapping(root.start_mark) if is_null(root) else root


def _section_of_keys() -> dict[str, str]:
    """Setting → its full name, for keys in the wrong section."""
    homes = {}
    for section in dataclasses.fields(Recipe):
        choices = one_of(section.type)
        forms = list(whole_forms(choices).values()) if choices else [section.type]
        for settings in filter(dataclasses.is_dataclass, forms):
            for setting in dataclasses.fields(settings):
                homes[setting.name] = f"{section.name}.{setting.name}"
    return homes


def _absolute(recipe: Recipe) -> Recipe:
    """All paths from the root of the file system, so that the resolved recipe means the same everywhere."""
    root = os.path.abspath(os.path.expanduser(recipe.data.root or ""))
    data = dataclasses.replace(
        recipe.data,
        root=recipe.data.root and root,
        train=tuple(_with_paths_below(root, source) for source in recipe.data.train),
        val=tuple(_with_paths_below(root, source) for source in recipe.data.val),
    )
    return dataclasses.replace(recipe, data=data, task=_with_paths_below(root, recipe.task))


def _with_paths_below(root: str, settings: Settings) -> Settings:
    """The settings with those that name files below `root`."""
    changes = {}
    for setting in dataclasses.fields(settings):
        if setting.metadata.get("path"):
            value = getattr(settings, setting.name)
            changes[setting.name] = _path_below(root, value)
            if setting.metadata.get("made_by") and value:
                changes[setting.name] = _made_file(root, value)
    return dataclasses.replace(settings, **changes)


def _made_file(root: str, value: str) -> str:
    """A file that a command of the program writes: below `root`, or, where it is not there, from the current folder, in
    which the command may have written it."""
    below_root = _path_below(root, value)
    in_current_folder = _path_below(os.getcwd(), value)
    is_elsewhere = not os.path.exists(below_root) and os.path.isfile(in_current_folder)
    chosen: str = in_current_folder if is_elsewhere else below_root
    return chosen


def _path_below(root: str, value: Any) -> Any:
    """A path, or all in a list or a mapping of them; nothing stays nothing, and addresses and commands stay as they
    are."""
    if isinstance(value, tuple):
        return tuple(_path_below(root, path) for path in value)
    if isinstance(value, dict):
        return {name: _path_below(root, path) for name, path in value.items()}
    if not value or is_remote(value):
        return value
    return os.path.normpath(os.path.join(root, os.path.expanduser(value)))


def recipes_folder() -> Path:
    """Where the recipes are that come with the package (beside it in a source tree)."""
    package = Path(__file__).parents[1]
    return next(path for path in (package / "recipes", package.parent / "recipes") if path.is_dir())


def shipped_recipes() -> dict[str, Path]:
    """Name → file of the recipes that come with the package."""
    return {path.stem: path for path in sorted(recipes_folder().glob("*.yaml"))}


def find_recipe(name_or_path: str) -> Path:
    """A file, or the shipped recipe of that name; a path that is not there falls back to the shipped recipe
    of its name and says so. Raises RecipeError."""
    path, shipped = Path(name_or_path), shipped_recipes()
    if path.is_file():
        return path
    if name_or_path in shipped:
        return shipped[name_or_path]
    if path.suffix in (".yaml", ".yml") and path.stem in shipped:
        say(f"{name_or_path} does not exist; using fiber's own recipe {path.stem!r}")
        return shipped[path.stem]
    raise RecipeError(f"no such file, and {unknown('recipe', name_or_path, shipped)}")


def resolve_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe with the command line's `section.key=value` put over it. Raises RecipeError."""
    path = find_recipe(name_or_path)
    return parse_recipe(read_recipe(path), str(path), overrides, name=path.stem)


def read_recipe(path: Path) -> str:
    """The text of a recipe file. Raises RecipeError."""
    try:
        return decode_text(read_regular(path))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    except NotText as error:
        raise RecipeError(f"{path}: {error}") from None


def recipe_header(path: Path) -> dict[str, str]:
    """The leading comment block's `key: value` lines (command, reproduces, paper, hardware); a line without a
    key continues the one above."""
    header: dict[str, str] = {}
    key = "about"
    for line in lines_of(read_recipe(path)):
        if not line.startswith("#"):
            break
        text = line[1:].strip()
        head, colon, rest = text.partition(": ")
        if colon and head.isidentifier():
            key, text = head, rest
        header[key] = f"{header.get(key, '')} {text}".strip()
    return header


def resolve_source(text: str, root: str | None = None) -> SourceSettings:
    """An entry of `data.train` from YAML, such as `{kind: karpathy, json: …, images: …}`, with paths below `root`.
    Raises RecipeError with every problem."""
    builder = Builder({})
    settings = builder.build(AnySource, _compose(text, "--source"), "source")
    if builder.errors:
        raise RecipeError("--source is no entry of a recipe:", *builder.errors)
    return _with_paths_below(os.path.abspath(os.path.expanduser(root or "")), settings)
