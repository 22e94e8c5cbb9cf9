"""`fiber pretrain` and `fiber finetune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fiber_cli.cli.options import (
    DeviceOfTraining,
    Nproc,
    Overrides,
    PrecisionOfTraining,
    RecipeName,
    Tf32OfTraining,
    checkpoint_option,
    one_of,
    with_placement,
)
from fiber_cli.cli.processes import is_first_rank, launch_ranks, train_here
from fiber_cli.cli.runs import named_to_start
from fiber_cli.printing import say
from fiber_cli.settings import RecipeError
from fiber_cli.tasks import declarations, declared

Output = Annotated[Path | None, typer.Option(help="Run folder.  [default: runs/<recipe name>]")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")]
InitFrom = Annotated[
    str | None,
    checkpoint_option(
        "Checkpoint to take first weights from, org/name of the hub too; of a run its best; builtin: a shipped one."
    ),
]
LatestWeights = Annotated[bool, typer.Option("--latest", help="With --init-from RUN: its latest checkpoint instead.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and run one batch.")]


def trained_by(verb: str) -> tuple[str, ...]:
    """The names of the tasks that a command trains."""
    return tuple(declaration.name for declaration in declarations() if declaration.verb == verb)


if TYPE_CHECKING:
    Stage = str
    FineTuned = str
else:
    Stage = one_of(trained_by("pretrain"))
    FineTuned = one_of(trained_by("finetune"))


def pretrain(
    context: typer.Context,
    stage: Annotated[Stage, typer.Argument(metavar="stage", help="Pre-training stage.")],
    overrides: Overrides = None,
    *,
    recipe: RecipeName,
    output: Output = None,
    resume: Resume = False,
    init_from: InitFrom = None,
    latest: LatestWeights = False,
    dry_run: DryRun = False,
    nproc: Nproc = 1,
    precision: PrecisionOfTraining = None,
    device: DeviceOfTraining = None,
    tf32: Tf32OfTraining = None,
) -> None:
    """Pre-train: coarse from images and captions, fine from images, words and boxes."""
    train_here(device)
    settings = with_placement(overrides, precision, tf32)
    train(context, stage, settings, recipe, output, resume, init_from, latest, dry_run, nproc)


def finetune(
    context: typer.Context,
    task: Annotated[FineTuned, typer.Argument(metavar="task", help="What to train for.")],
    overrides: Overrides = None,
    *,
    recipe: RecipeName,
    output: Output = None,
    resume: Resume = False,
    init_from: InitFrom = None,
    latest: LatestWeights = False,
    dry_run: DryRun = False,
    nproc: Nproc = 1,
    precision: PrecisionOfTraining = None,
    device: DeviceOfTraining = None,
    tf32: Tf32OfTraining = None,
) -> None:
    """Fine-tune a pre-trained checkpoint for a task."""
    train_here(device)
    settings = with_placement(overrides, precision, tf32)
    train(context, task, settings, recipe, output, resume, init_from, latest, dry_run, nproc)


def train(
    context: typer.Context,
    task: str,
    overrides: list[str],
    recipe_name: str,
    output: Path | None,
    resume: bool,
    init_from: str | None,
    latest: bool,
    dry_run: bool,
    nproc: int,
) -> None:
    """Check what can be checked before anything heavy is loaded, and hand the resolved recipe over."""
    from fiber_cli.config.resolve import find_recipe, resolve_recipe
    from fiber_cli.training.run_folder import check_output

    file = str(find_recipe(recipe_name))
    recipe = resolve_recipe(file, overrides)
    if recipe.task.name != task:
        raise RecipeError(f"{file} is a recipe for {recipe.task.name}, not for {task}; `fiber recipes` lists all")
    if resume and init_from:
        raise typer.BadParameter("--resume continues a run, --init-from starts a new one: give one of them")
    if latest and init_from is None:
        raise typer.BadParameter("--latest is of the run that --init-from names; --resume always takes the latest")
    output = output or Path("runs") / recipe.name
    # Other ranks may look after the first has begun to write.
    if not dry_run and is_first_rank():
        check_output(output, resume=resume)
    start = None if init_from is None else named_to_start(task, init_from)
    if nproc > 1:
        begin = () if start is None else ("--init-from", str(start))
        launch_ranks(context, nproc, "--recipe", file, *begin)
    if latest:
        from fiber_cli.checkpoints.directory import resolve

        assert start is not None
        start = resolve(start, latest=True)
    if dry_run:
        from fiber_cli.training.plan import dry_run as show_plan

        if resume:
            show_plan(recipe, continued=output)
        else:
            show_plan(recipe, start)
        return
    from fiber_cli.training.fit import fit

    has_backbones = recipe.model.swin or recipe.model.roberta or recipe.model.towers
    if continues_another(task) and not (start or resume or has_backbones):
        say("no --init-from: training starts from random weights")
    raise typer.Exit(fit(recipe, output, resume=resume, init_from=start))


def continues_another(task: str) -> bool:
    """Whether a task is meant to begin with the weights of another, of which it says what it changes."""
    changes = declared(task).init_from
    return bool(changes.fresh or changes.dropped)
