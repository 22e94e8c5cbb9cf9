"""What `fiber ablate` measures by `fiber eval`: lines of arguments, checked before anything is trained."""

import re
import shlex
from typing import TYPE_CHECKING, Any

import typer

from fiber_cli.cli.evaluation import evaluate
from fiber_cli.errors import UserError
from fiber_cli.tasks.abilities import Ability, Embedding, Matching

if TYPE_CHECKING:
    from fiber_cli.settings import TaskSettings

#: Options that `fiber ablate` gives, and one that would measure another model beside the variant's.
_NOT_HERE = ("checkpoint", "itm_checkpoint", "latest", "output", "force", "nproc")
#: The halves of retrieval that a mode scores by, and their names.
_HALVES: dict[str | None, dict[str, type[Ability]]] = {
    "itc": {"ITC": Embedding},
    "itm": {"ITM": Matching},
    "itc+itm": {"ITC": Embedding, "ITM": Matching},
}
_UsageError: Any = typer.BadParameter.__base__


def results_folder(line: str) -> str:
    """The name of the folder with the results of a line of arguments, so that other arguments have another one."""
    return "eval-" + re.sub(r"[^\w.+]+", "-", line).strip("-")


def problem_of(line: str, task: "TaskSettings") -> str | None:
    """What is wrong with a line of arguments for checkpoints of a task, as far as can be known before there is one;
    None where nothing is."""
    try:
        _check(line, task)
    except UserError as error:
        return f"evaluate {line!r}: {error.message}"
    return None


def _check(line: str, task: "TaskSettings") -> None:
    from fiber_cli.evaluation.datasets import eval_data
    from fiber_cli.tasks import declared

    given = _parsed(line)
    for name in _NOT_HERE:
        if given.pop(name) not in (None, False, 1):
            option = name.replace("_", "-")
            raise UserError(f"without --{option}: each run is measured by itself, in its own folder")
    eval_data(
        given["dataset"],
        task.name,
        given["split"],
        given["root"],
        images=given["images"],
        published_prompts=given["published_prompts"],
    )
    abilities = declared(task.name).abilities
    for half, ability in _HALVES.get(given["mode"], {}).items():
        if ability not in abilities or ability in task.switched_off:
            raise UserError(
                f"--mode {given['mode']} of a model without {half}; give the variant an `evaluate` of its own"
            )


def _parsed(line: str) -> dict[str, Any]:
    """Values of the arguments and options of `fiber eval` by name. Raises UserError for what it would refuse."""
    parser = typer.Typer(add_completion=False)
    parser.command()(evaluate)
    command = typer.main.get_command(parser)
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UserError(f"{error}; quote a value with spaces as a whole") from None
    if "--help" in words:
        raise UserError("--help measures nothing")
    try:
        with command.make_context("fiber eval", words) as context:
            return dict(context.params)
    except _UsageError as error:
        raise UserError(error.format_message()) from None
