"""Grids of ablations: one recipe, and variants of it that each change a few settings."""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from fiber_cli.config.resolve import read_recipe, recipes_folder
from fiber_cli.config.strict import Builder, unknown
from fiber_cli.config.yaml_nodes import reason
from fiber_cli.parsing import compose
from fiber_cli.settings import RecipeError, option

#: Folder of the shipped grids, beside the shipped recipes.
FOLDER = "grids"
#: A variant's name is that of its folder too.
_NAME = re.compile(r"\w[\w .+-]*")


@dataclass(frozen=True)
class Variant:
    """One row of the comparison."""

    name: str = option("Of the row, and of the folder of its runs.")
    settings: tuple[str, ...] = option("Put over the recipe's, each as section.key=value.", ())
    group: str = option("The question that it answers, over the rows that share it.", "")
    evaluate: tuple[str, ...] | None = option("In place of the grid's; null = as the grid has it.", None)
    paper: str = option("What the paper says of it.", "")

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return self.name.replace(" ", "-")


@dataclass(frozen=True)
class Grid:
    """What `fiber ablate` runs. The first variant is what the others are compared with."""

    metrics: tuple[str, ...] = option("Columns of the comparison, metrics of the validation or of `evaluate`.")
    variants: tuple[Variant, ...] = option("At least two.")
    seeds: tuple[int, ...] = option("A run of every variant with each.", (0,), ge=0)
    evaluate: tuple[str, ...] = option(
        "What `fiber eval` measures after each run, such as `scenes --mode itc+itm`.", ()
    )


def parse_grid(text: str, where: str) -> Grid:
    """A grid from YAML; `where` is what errors call its source. Raises RecipeError with every problem."""
    try:
        root = compose(text, where)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not valid YAML: {reason(error)}") from None
    builder = Builder({})
    grid = builder.build(Grid, root, "")
    if builder.errors:
        raise RecipeError(f"{len(builder.errors)} problem(s) in the grid:", *builder.errors)
    assert isinstance(grid, Grid)
    check_grid(grid, where)
    return grid


def check_grid(grid: Grid, where: str) -> None:
    """Raises RecipeError for a grid that compares nothing, or whose runs would share a folder."""
    for what, entries in (("metrics", grid.metrics), ("seeds", grid.seeds), ("variants", grid.variants)):
        if not entries:
            raise RecipeError(f"{where}: {what} is empty; name at least one")
    if len(set(grid.seeds)) < len(grid.seeds):
        raise RecipeError(f"{where}: seeds {', '.join(map(str, grid.seeds))}: one comes twice")
    if len(grid.variants) < 2:
        raise RecipeError(f"{where}: a single variant has nothing to be compared with; give another")
    folders: dict[str, str] = {}
    for variant in grid.variants:
        if not _NAME.fullmatch(variant.name) or variant.name.endswith((" ", ".")):
            raise RecipeError(
                f"{where}: variant {variant.name!r}: a name is also a folder's: letters, digits, spaces and . + - _"
            )
        other = folders.setdefault(variant.folder.casefold(), variant.name)
        if other is not variant.name:
            raise RecipeError(f"{where}: variants {other!r} and {variant.name!r} would share a folder; rename one")


def variant_of(text: str) -> Variant:
    """A variant as the command line has it, `NAME: section.key=value section.key=value`; after the colon words as a
    shell has them, none of them for the recipe as it is. Raises RecipeError."""
    name, colon, settings = text.partition(":")
    if not colon:
        raise RecipeError(f"--variant {text!r}: give NAME: section.key=value …, or NAME: for the recipe as it is")
    try:
        words = shlex.split(settings)
    except ValueError as error:
        raise RecipeError(f"--variant {text!r}: {error}; quote a value with spaces as a whole") from None
    return Variant(name.strip(), tuple(words))


def shipped_grids() -> dict[str, Path]:
    """Name → file of the grids that come with the package."""
    return {path.stem: path for path in sorted((recipes_folder() / FOLDER).glob("*.yaml"))}


def read_grid(name_or_path: str) -> Grid:
    """The grid in a file, or the shipped one of that name. Raises RecipeError."""
    path, shipped = Path(name_or_path), shipped_grids()
    if not path.is_file():
        if name_or_path not in shipped:
            raise RecipeError(f"no such file, and {unknown('grid', name_or_path, shipped)}")
        path = shipped[name_or_path]
    return parse_grid(read_recipe(path), str(path))


def with_variants(grid: Grid | None, added: Sequence[Variant], metrics: Sequence[str], where: str) -> Grid:
    """A grid and further variants, or one of these alone; `metrics`, where there are any, are its columns. Raises
    RecipeError."""
    if grid is None:
        grid = Grid(tuple(metrics), tuple(added))
    else:
        grid = dataclasses.replace(grid, variants=(*grid.variants, *added), metrics=tuple(metrics) or grid.metrics)
    check_grid(grid, where)
    return grid
