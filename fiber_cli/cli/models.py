"""`fiber models`: the checkpoints that ship with the package."""

from typing import TYPE_CHECKING

import typer

from fiber_cli.characters import one_line
from fiber_cli.errors import UserError
from fiber_cli.printing import say, show
from fiber_cli.tasks import declared

if TYPE_CHECKING:
    from fiber_cli.checkpoints.shipped import Described

_MEGABYTE = 1e6


def list_models(context: typer.Context) -> None:
    """List the checkpoints that ship with fiber, what each can do, and how large it is."""
    if context.invoked_subcommand is not None:
        return
    from fiber_cli.checkpoints import shipped

    if not shipped.names():
        say(shipped.none_ships())
        return
    for name in shipped.names():
        try:
            lines = _lines(shipped.describe(name))
        except UserError as error:
            lines = [name, error.message]
        show("\n    ".join(map(one_line, lines)))
    show(f"all {shipped.KNOWS}; `fiber models card` says how they were made and what they are measured to do")


def _lines(model: "Described") -> list[str]:
    """What is said of one."""
    from fiber_cli.checkpoints.runs import can

    declaration = declared(model.config.task.name)
    commands = dict.fromkeys(ability.used_by for ability in declaration.abilities if can(model.config, ability))
    return [
        model.name,
        f"task {declaration.name}: {declaration.about}",
        f"for {', '.join([*commands, 'fiber eval'])}",
        f"{model.parameters:,} parameters, {model.size / _MEGABYTE:.1f} MB",
    ]


def card() -> None:
    """Print the model card: what they were trained on, and what they are measured to do."""
    from fiber_cli.checkpoints import shipped

    text = shipped.card()
    if not text:
        raise UserError(f"there is no model card: {shipped.folder() / shipped.CARD} is missing")
    show(text, end="")
