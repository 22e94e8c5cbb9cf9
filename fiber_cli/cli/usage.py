"""What is said of a wrong command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from fiber_cli.characters import one_line

#: The base of what the parser and the commands raise for a wrong use; typer does not name it.
_UsageError: Any = typer.BadParameter.__base__
#: What the library by which typer checks values puts in front of what it says.
_PREFIX = "Value error, "


class Commands(TyperGroup):
    """The commands; the words of a user stand in their usage errors as `characters.one_line` has them."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _in_one_line():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _in_one_line():
            return super().invoke(ctx)


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        is_help = error.ctx is not None and error.message == error.ctx.get_help()
        if not is_help:
            error.message = one_line(error.message.removeprefix(_PREFIX))
        raise
