"""`fiber plan`: what a recipe's training takes."""

from typing import TYPE_CHECKING, Annotated

import typer

from fiber_cli.cli.options import Overrides
from fiber_cli.errors import UserError

if TYPE_CHECKING:
    from fiber_cli.training.gpus import Gpu


def plan(
    recipe: Annotated[str, typer.Argument(metavar="recipe", help="Name of a shipped recipe, or a file.")],
    overrides: Overrides = None,
    *,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="How many of them.")] = 1,
    device: Annotated[str, typer.Option("--device", help="Of which kind, such as h100, a100 or 4090.")] = "4090",
    share: Annotated[
        float | None,
        typer.Option(
            "--share",
            min=0.001,
            max=1,
            help="The share of the device's rate that is reached, such as a benchmark has measured.",
        ),
    ] = None,
) -> None:
    """What a training takes: parameters, memory, operations, samples and GPU-hours. Needs neither data nor a GPU."""
    from fiber_cli.config.resolve import resolve_recipe

    settings = resolve_recipe(recipe, overrides or [])
    gpu = _gpu(device)
    from fiber_cli.printing import show
    from fiber_cli.training.forecast import forecast

    for line in forecast(settings, gpu, gpus, share):
        show(line)


def _gpu(name: str) -> "Gpu":
    from fiber_cli.training.gpus import GPUS

    known = GPUS.get(name.lower().removeprefix("rtx").strip(" -_"))
    if known is None:
        raise UserError(f"--device {name}: not known; known are {', '.join(GPUS)}")
    return known
