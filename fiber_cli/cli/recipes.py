"""`fiber recipes`: the shipped recipes and the reference of their settings."""

from typing import Annotated

import typer

from fiber_cli import printing
from fiber_cli.text_files import lines_of


def list_recipes(context: typer.Context) -> None:
    """List the shipped recipes and what each reproduces."""
    if context.invoked_subcommand is not None:
        return
    from fiber_cli.config.resolve import recipe_header, shipped_recipes

    for name, path in shipped_recipes().items():
        header = recipe_header(path)
        lines = [name, header["about"], f"reproduces: {header['reproduces']}", header["command"]]
        printing.show("\n    ".join(lines))


def show(name: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a file.")]) -> None:
    """Print a recipe."""
    from fiber_cli.config.resolve import find_recipe, read_recipe

    lines = lines_of(read_recipe(find_recipe(name)))
    printing.show("\n".join(lines))


def schema() -> None:
    """Print the reference of all recipe settings, in Markdown."""
    from fiber_cli.config.schema import schema_markdown

    printing.show(schema_markdown(), end="")
