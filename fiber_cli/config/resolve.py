"""Recipes: one YAML file, with `section.key=value` from the command line put over it, becomes a `Recipe`.

`resolve_recipe` is the one way in. All errors come at once, each with place, key, value and the nearest
valid name.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from fiber_cli.config import strict
from fiber_cli.config.settings import SECTIONS, AnySource, Recipe, RecipeError, broken_rules

AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}


def parse_recipe(text: str, where: str, overrides: Sequence[str] = (), name: str = "recipe") -> Recipe:
    """A recipe from YAML; `where` is what errors call its source. Raises RecipeError with every problem."""
    try:
        root = strict.compose(text, where)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise RecipeError(f"{where}:{line}: not valid YAML: {strict.reason(error)}") from None
    if strict.is_null(root):
        root = strict.empty_mapping(root.start_mark)
    problems = [problem for text in overrides if (problem := strict.override(root, text))]
    homes = {
        f.name: f"{section}.{f.name}"
        for section, forms in SECTIONS.items()
        for cls in forms.values()
        for f in dataclasses.fields(cls)
    }
    builder = strict.Builder(homes)
    recipe = builder.build(Recipe, root, "")
    problems += builder.errors
    if recipe is not None:
        for key, message in broken_rules(recipe, builder.bad):
            # A key that is not given is blamed on its section.
            at = builder.places.get(key) or builder.places.get(key.partition(".")[0], where)
            problems.append(f"{at}: {message}")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise RecipeError("\n  ".join([f"{count} in the recipe:", *problems]))
    if "name" not in builder.places:
        recipe = dataclasses.replace(recipe, name=name)
    return _absolute(recipe)


def _absolute(recipe: Recipe) -> Recipe:
    """All paths from the root of the file system, so that the resolved recipe means the same everywhere."""
    data = recipe.data
    root = os.path.abspath(os.path.expanduser(data.root or ""))

    def absolute(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(absolute, value))
        if isinstance(value, dict):
            return {name: absolute(folder) for name, folder in value.items()}
        return value and os.path.normpath(os.path.join(root, os.path.expanduser(value)))

    def section(spec: Any) -> Any:
        paths = [f.name for f in dataclasses.fields(spec) if f.metadata.get("path")]
        return dataclasses.replace(spec, **{name: absolute(getattr(spec, name)) for name in paths})

    sources = {split: tuple(map(section, getattr(data, split))) for split in ("train", "val")}
    data = dataclasses.replace(data, root=data.root and root, **sources)
    return dataclasses.replace(recipe, data=data, task=section(recipe.task))


def shipped_recipes() -> dict[str, Path]:
    """Name → file of the recipes that come with the package (beside it in a source tree)."""
    package = Path(__file__).parents[1]
    folder = next(f for f in (package / "recipes", package.parent / "recipes") if f.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name_or_path: str) -> Path:
    """A file, or the shipped recipe of that name; a path that is not there falls back to the shipped recipe
    of its name and says so. Raises RecipeError."""
    path, shipped = Path(name_or_path), shipped_recipes()
    if path.is_file():
        return path
    if name_or_path in shipped:
        return shipped[name_or_path]
    if path.suffix in (".yaml", ".yml") and path.stem in shipped:
        print(f"{name_or_path} does not exist; using fiber's own recipe {path.stem!r}", file=sys.stderr)
        return shipped[path.stem]
    raise RecipeError(f"no such file, and {strict.unknown('recipe', name_or_path, shipped)}")


def resolve_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe with the command line's `section.key=value` put over it. Raises RecipeError."""
    path = find_recipe(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None
    return parse_recipe(text, str(path), overrides, name=path.stem)


def recipe_header(path: Path) -> dict[str, str]:
    """The leading comment block's `key: value` lines (command, reproduces, paper, hardware); a line without a
    key continues the one above."""
    header: dict[str, str] = {}
    key = "about"
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        head, colon, rest = line[1:].strip().partition(": ")
        key, text = (head, rest) if colon and head.isidentifier() else (key, line[1:].strip())
        header[key] = f"{header.get(key, '')} {text}".strip()
    return header


def deepspeed_config(recipe: Recipe, world: int) -> dict[str, Any]:
    """DeepSpeed's configuration on `world` ranks, for a torch AdamW and a schedule that the engine drives.

    bf16 and fp16 compute the task under DeepSpeed's autocast, which leaves the parameters float32 at every
    ZeRO stage.
    """
    run = recipe.runtime
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": run.micro_batch,
        "gradient_accumulation_steps": run.micro_steps(world),
        "zero_optimization": {"stage": run.zero_stage},
        "gradient_clipping": run.clip or 0.0,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    if run.offload == "cpu":
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
        config["zero_force_ds_cpu_optimizer"] = False  # DeepSpeed's own CPU Adam wants a compiler
    if run.precision != "fp32":
        config["torch_autocast"] = {"enabled": True, "dtype": AUTOCAST[run.precision]}
    return _merged(config, recipe.deepspeed)


def _merged(base: dict, over: dict) -> dict:
    merged = base | over
    for key in base.keys() & over.keys():
        if isinstance(base[key], dict) and isinstance(over[key], dict):
            merged[key] = _merged(base[key], over[key])
    return merged


def schema_markdown() -> str:
    """The reference of all sections and keys."""
    lines = ["# Recipe reference", ""]
    lines += _table(f for f in dataclasses.fields(Recipe) if f.name not in SECTIONS)
    places = [(f"`{name}`", forms) for name, forms in SECTIONS.items()]
    places.insert(3, ("an item of `data.train` or `data.val`", strict.forms(AnySource)))
    for place, forms in places:
        for cls in dict.fromkeys(forms.values()):
            tags = ", ".join(f"`{tag}`" for tag in forms if tag and forms[tag] is cls)
            title = f"{place}: {tags}" if tags else place
            lines += ["", f"## {title}", "", " ".join(cls.__doc__.split()), "", *_table(dataclasses.fields(cls))]
    return "\n".join(lines) + "\n"


def _table(fields: Iterable[dataclasses.Field]) -> Iterator[str]:
    yield from ("| key | type and limits | default | meaning |", "|---|---|---|---|")
    for f in fields:
        limits = [f"{strict.LIMITS[key][1]} {f.metadata[key]}" for key in strict.LIMITS if key in f.metadata]
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        shown = "required" if default is dataclasses.MISSING else f"`{json.dumps(default)}`"
        meaning = f.metadata.get("doc", "Says which form of this section it is.")
        yield f"| `{f.name}` | {', '.join([strict.describe(f.type), *limits])} | {shown} | {meaning} |"
