"""`fiber table`: the paper's tables with our figures beside its own."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from fiber_cli.cli.evaluated import Evaluated, models_of
from fiber_cli.cli.options import (
    DeviceOfTraining,
    FittingCheckpoint,
    Force,
    ItmCheckpoint,
    Nproc,
    PrecisionOfBoth,
    Tf32OfBoth,
    placement_words,
)
from fiber_cli.cli.processes import train_on
from fiber_cli.errors import UserError

if TYPE_CHECKING:
    from fiber_cli.tables.overview import Asked
    from fiber_cli.tables.retrieval import Retrieval

#: Commands that `--with` gives options to.
_WITH_MODEL = ("pretrain", "finetune", "eval", "rerank", "odinw")
_COMMANDS = (*_WITH_MODEL, "vqa-answers", "cider-df")
TableName = Literal["2", "3", "4", "5", "6", "7", "8", "fig5", "all"]


def table(
    name: Annotated[TableName, typer.Argument(help="A table of the paper, its Figure 5, or all of them.")],
    runs: Annotated[Path, typer.Option(help="Folder of the runs: runs/4m, runs/fine and so on.")] = Path("runs"),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of all data sets, the recipes' data.root; of table 4 also one data set's own."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what each row needs, what is there, and what the rest costs.")
    ] = False,
    run: Annotated[bool, typer.Option("--run", help="Make what is missing; the same command goes on again.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Put over all recipes that have the setting."),
    ] = None,
    with_options: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="'COMMAND OPTIONS'", help="Options of a command, such as 'eval --workers 0'."),
    ] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="Another folder with results.json of evaluations below it.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="4 only: retrieval on this data set, by one checkpoint or two.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of --dataset.  [default: test, or val without one]")] = None,
    checkpoint: FittingCheckpoint = None,
    itm_checkpoint: ItmCheckpoint = None,
    nproc: Nproc = 1,
    precision: PrecisionOfBoth = None,
    device: DeviceOfTraining = None,
    tf32: Tf32OfBoth = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of text.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder for every table as text, Markdown and JSON, and figure5.png.")
    ] = None,
    force: Force = False,
) -> None:
    """Print a table of the paper: our figures, from finished runs and evaluations, beside the paper's.

    With --dataset, or the folder of one data set as --data, table 4 is of that data and what is missing is evaluated.
    """
    if plan and run:
        raise typer.BadParameter("--plan says what --run would do: give one of them")
    if markdown and json:
        raise typer.BadParameter("--markdown or --json: give one of them")
    from fiber_cli.tables.overview import Asked, Form, Shown, make_and_show, show_measured, show_plan, show_retrieval

    check_folders(runs, data, results or ())
    placement = placement_words(precision, device, tf32)
    train_on(device)
    extra = options_of_commands(with_options or [], placement)
    named_precision = None if precision == "auto" else precision
    asked = Asked(name, runs, data, results or (), settings or (), nproc, extra, named_precision)
    form: Form = "text"
    if json:
        form = "json"
    elif markdown:
        form = "markdown"
    shown = Shown(form, output, force)
    named = DataOfOneSet(dataset, split, checkpoint, itm_checkpoint)
    retrieval = retrieval_asked(asked, named)
    if retrieval is not None:
        raise typer.Exit(show_retrieval(retrieval, asked, shown, is_plan=plan))
    if plan:
        show_plan(asked, shown)
    elif not run and placement:
        raise typer.BadParameter(f"{' '.join(placement)}: of what is made; give --run too, or leave it out")
    elif run:
        raise typer.Exit(make_and_show(asked, shown))
    else:
        show_measured(asked, shown)


def check_folders(runs: Path, data: Path | None, results: Sequence[Path]) -> None:
    """UserError for a folder that is none; that of the runs may not be there yet."""
    if runs.exists() and not runs.is_dir():
        raise UserError(f"--runs {runs}: is no folder")
    named = [("--data", data)] if data is not None else []
    for option, folder in (*named, *(("--results", folder) for folder in results)):
        if not folder.is_dir():
            raise UserError(f"{option} {folder}: no such folder")


class DataOfOneSet(NamedTuple):
    """The options of table 4 on one data set, as they are given."""

    dataset: str | None
    split: str | None
    checkpoint: str | None
    itm_checkpoint: str | None


def options_of_commands(given: Sequence[str], placement: Sequence[str]) -> dict[str, list[str]]:
    """The values of --with by their commands, behind the options of all that run a model."""
    options: dict[str, list[str]] = {}
    if placement:
        options = {command: list(placement) for command in _WITH_MODEL}
    for text in given:
        try:
            command, *words = shlex.split(text)
        except ValueError as error:
            raise typer.BadParameter(f"--with {text}: {error}") from None
        if command not in _COMMANDS or not words:
            commands = ", ".join(_COMMANDS)
            raise typer.BadParameter(f"--with {text}: give one of {commands}, and its options behind it")
        options.setdefault(command, []).extend(words)
    return options


def retrieval_asked(asked: "Asked", named: DataOfOneSet) -> "Retrieval | None":
    """Table 4 of one data set, where that is asked for: by --dataset, or by its own folder as --data. The checkpoints
    are those that are named, or the runs that `fiber rerank` would take."""
    from fiber_cli.tables.retrieval import Retrieval, dataset_in, split_of

    dataset = named.dataset
    if dataset is None and asked.name == "4" and asked.data is not None:
        dataset = dataset_in(asked.data)
    if dataset is None or asked.name != "4":
        unused = [f"--{name.replace('_', '-')}" for name, value in named._asdict().items() if value is not None]
        if unused:
            raise typer.BadParameter(
                f"{', '.join(unused)}: of table 4 on one data set, which --dataset or --data names"
            )
        return None
    if asked.settings:
        raise typer.BadParameter("--set: nothing is trained for the table of one data set; leave it out")
    split = named.split or split_of(dataset, asked.data)
    evaluated = Evaluated(
        dataset, split, asked.data, named.checkpoint, named.itm_checkpoint, False, None, None, runs=asked.runs
    )
    models = models_of(evaluated, "rerank")
    return Retrieval(dataset, split, asked.data, models.checkpoint, models.itm_checkpoint)
