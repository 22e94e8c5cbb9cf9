"""`fiber ablate`: variants of a recipe, trained one after another with the same steps, and their comparison."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from fiber_cli.characters import one_line, row
from fiber_cli.cli.ablation_evaluations import problem_of, results_folder
from fiber_cli.cli.options import (
    DeviceOfTraining,
    Force,
    Nproc,
    Overrides,
    PrecisionOfBoth,
    Tf32OfBoth,
    checkpoint_option,
    placement_words,
    with_placement,
)
from fiber_cli.cli.processes import refuse_ranks, run_command, train_on
from fiber_cli.cli.runs import named_to_start
from fiber_cli.errors import UserError
from fiber_cli.printing import say, show
from fiber_cli.text_files import dump_json

if TYPE_CHECKING:
    from fiber_cli.config.grid import Grid, Variant
    from fiber_cli.config.recipe import Recipe
    from fiber_cli.outputs import Outputs
    from fiber_cli.training.ablation import VariantResults

SETTINGS_FILE, RESULTS_FILE = "settings.json", "results.json"
#: The comparison's files, by their endings.
COMPARISON = "comparison"
_SEED = "runtime.seed="


class AblationRun(NamedTuple):
    """A variant with a seed. overrides: the settings put over the recipe's file; evaluations: what `fiber eval`
    measures after it, each as a line of arguments, by the folder of its results."""

    variant: "Variant"
    seed: int
    recipe: "Recipe"
    folder: Path
    overrides: list[str]
    evaluations: dict[Path, str]

    @property
    def is_new(self) -> bool:
        """Whether nothing of it is there. Raises UserError for a folder that is no place for a run."""
        from fiber_cli.training.run_folder import is_new

        return is_new(self.folder)

    @property
    def state(self) -> str:
        """How far it is, in a word. Raises UserError as the others do."""
        if self.is_trained:
            missing = [folder for folder in self.evaluations if not (folder / RESULTS_FILE).is_file()]
            return "trained" if missing else "finished"
        return "new" if self.is_new else "begun"

    @property
    def is_trained(self) -> bool:
        """Whether it has ended."""
        from fiber_cli.checkpoints.run_files import SUMMARY

        return (self.folder / SUMMARY).is_file()

    def check_settings(self) -> None:
        """Raises UserError where what has ended there is a run of other settings; one that goes on refuses them."""
        from fiber_cli.checkpoints.run_files import RECIPE
        from fiber_cli.training.resume import FREE_ON_RESUME, differing_settings

        if not self.is_trained:
            return
        differing = differing_settings(self.recipe, self.folder / RECIPE)
        differing = [each for each in differing if not each.startswith(FREE_ON_RESUME)]
        if differing:
            raise UserError(f"{self.folder} holds a run with other settings; give another --output:", *differing)


def ablate(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.", show_default=False)],
    overrides: Overrides = None,
    *,
    grid: Annotated[
        str | None,
        typer.Option(
            help="A file of variants, or the name of a shipped one.  [default: the shipped one of the recipe's name]"
        ),
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help='Another variant, as "NAME: section.key=value …"; several times.')
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help="A column instead of the grid's; several times.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Train this variant now; several times. The comparison still has all.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds with commas, such as 0,1.  [default: the grid's]")] = None,
    init_from: Annotated[
        str | None,
        checkpoint_option("Checkpoint that every run starts from, org/name of the hub too; builtin: a shipped one."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of all runs and of the comparison.  [default: runs/ablate-<recipe name>]"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show which runs there are and how far they are.")] = False,
    nproc: Nproc = 1,
    force: Force = False,
    precision: PrecisionOfBoth = None,
    device: DeviceOfTraining = None,
    tf32: Tf32OfBoth = None,
) -> None:
    """Train variants of a recipe and compare them. The same command again goes on where it was.

    The comparison (text, Markdown, JSON and a picture) is drawn after every run; what is not finished is left open.
    """
    import dataclasses

    from fiber_cli.config.grid import check_grid, shipped_grids
    from fiber_cli.config.resolve import find_recipe, resolve_recipe
    from fiber_cli.distributed.folder_lock import locked
    from fiber_cli.outputs import Outputs

    refuse_ranks("ablate")
    train_on(device)
    settings = with_placement(overrides, precision, tf32)
    file = find_recipe(recipe)
    if grid is None and not variant:
        if file.stem not in shipped_grids():
            raise typer.BadParameter(f"{recipe} has no grid of its name: give --grid, or variants with --variant")
        grid = file.stem
    planned_grid = _grid(grid, variant or [], metric or [])
    if seeds is not None:
        planned_grid = dataclasses.replace(planned_grid, seeds=_seeds(seeds))
        check_grid(planned_grid, "--seeds")
    folder = output or Path("runs") / f"ablate-{file.stem}"
    plain = resolve_recipe(str(file), settings)
    runs = _runs(planned_grid, file, settings, folder, nproc)
    wanted = _of_variants(runs, planned_grid, only or [])
    for run in runs:
        run.check_settings()
    if dry_run:
        _show_plan(wanted)
        return
    start = None if init_from is None else _weights(plain.task.name, init_from)
    outputs = Outputs(force=force)
    for ending in ("json", "md", "txt", "png"):
        outputs.check(folder / f"{COMPARISON}.{ending}")
    with locked(folder):
        _keep_start(folder / SETTINGS_FILE, start, outputs)
        for number, run in enumerate(wanted, 1):
            say(f"ablate: {number} of {len(wanted)}, {run.folder}")
            if not run.is_trained:
                run_command(
                    "ablate", nproc, [*_training_arguments(run, file, start), *placement_words(None, device, None)]
                )
            options = list(placement_words(precision, device, tf32))
            if force:
                options.append("--force")
            _evaluate(run, nproc, options)
            if run.variant is planned_grid.variants[0]:
                _tell_missing_metrics(run, planned_grid.metrics)
            text = _write_comparison(planned_grid, runs, folder, outputs)
    show(text)
    show(one_line(f"{folder / COMPARISON}.md, .txt, .json and .png"))


def _grid(name: str | None, variants: Sequence[str], metrics: Sequence[str]) -> "Grid":
    from fiber_cli.config.grid import read_grid, variant_of, with_variants

    added = [variant_of(text) for text in variants]
    if name is None and not metrics:
        raise typer.BadParameter("--variant without --grid: say by --metric what is compared, such as itc/ir@1")
    return with_variants(None if name is None else read_grid(name), added, metrics, name or "--variant")


def _seeds(text: str) -> tuple[int, ...]:
    """The value of --seeds."""
    numbers = []
    for word in text.split(","):
        if not word.strip().isdecimal():
            raise typer.BadParameter(f"--seeds {text}: give whole numbers from 0, such as 0,1")
        numbers.append(int(word))
    return tuple(numbers)


def _of_variants(runs: list[AblationRun], grid: "Grid", names: Sequence[str]) -> list[AblationRun]:
    """Those of the variants that are named, of all where none is. Raises UserError for a name that none has."""
    from fiber_cli.config.strict import unknown

    known = [variant.name for variant in grid.variants]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"--only: {unknown('variant', name, known)}")
    return [run for run in runs if not names or run.variant.name in names]


def _weights(task: str, named: str) -> Path:
    from fiber_cli.checkpoints.directory import resolve

    return resolve(named_to_start(task, named))


def _runs(grid: "Grid", file: Path, overrides: Sequence[str], output: Path, nproc: int) -> list[AblationRun]:
    """Seed by seed, so that a comparison of all is there as early as can be. Raises RecipeError, before anything is
    trained, with what is wrong in any variant, and where one is not validated and not evaluated."""
    from fiber_cli.config.resolve import resolve_recipe
    from fiber_cli.settings import RecipeError

    runs = []
    problems = []
    for seed in grid.seeds:
        for variant in grid.variants:
            settings = [*overrides, *variant.settings]
            if any(setting.startswith(_SEED) for setting in settings):
                problems.append(f"{variant.name}: {_SEED}…: the grid's seeds give it, or --seeds")
            settings.append(f"{_SEED}{seed}")
            folder = output / variant.folder / f"seed-{seed}"
            lines = grid.evaluate if variant.evaluate is None else variant.evaluate
            evaluations = {folder / results_folder(line): line for line in lines}
            try:
                recipe = resolve_recipe(str(file), settings)
            except RecipeError as error:
                problems += [f"{variant.name}: {detail}" for detail in (error.details or (error.message,))]
                continue
            if not (recipe.log.validate_every or evaluations):
                problems.append(
                    f"{variant.name}: log.validate_every is null and evaluate is empty: nothing is measured"
                )
            for line in lines:
                problem = problem_of(line, recipe.task)
                if problem is not None:
                    problems.append(f"{variant.name}: {problem}")
            runs.append(AblationRun(variant, seed, recipe, folder, settings, evaluations))
    if problems:
        raise RecipeError("variants that cannot be trained:", *dict.fromkeys(problems))
    return runs


def _show_plan(runs: Sequence[AblationRun]) -> None:
    """A line a run: how far it is, its steps or epochs, its folder, and what it changes."""
    for run in runs:
        optim = run.recipe.optim
        length = f"{optim.epochs} epochs"
        if optim.steps:
            length = f"{optim.steps} steps"
        show(row([run.state, length, run.folder, " ".join(run.variant.settings) or "the recipe as it is"]))


def _keep_start(file: Path, start: Path | None, outputs: "Outputs") -> None:
    """What all runs of the folder begin with; UserError where those in it began with something else."""
    from fiber_cli.data.files import read_json

    given = {"init_from": None if start is None else str(start.resolve())}
    if not os.path.lexists(file):
        outputs.write(file, dump_json(given, indent=2) + "\n")
        return
    earlier = read_json(file, "the settings of the runs beside it")
    if earlier != given:
        raise UserError(
            f"{file} says that the runs beside it began with other weights than --init-from {given['init_from']}: give "
            "another --output"
        )


def _evaluate(run: AblationRun, nproc: int, options: list[str]) -> None:
    """What is not measured of a run. options: of all evaluations, before which those of an evaluation's own count."""
    for folder, line in run.evaluations.items():
        if not (folder / RESULTS_FILE).is_file():
            where = ["--checkpoint", str(run.folder), "--output", str(folder)]
            run_command("ablate", nproc, ["eval", *options, *shlex.split(line), *where])


def _training_arguments(run: AblationRun, file: Path, start: Path | None) -> list[str]:
    """`fiber pretrain` or `fiber finetune` of a run, or its continuation."""
    from fiber_cli.tasks import declared

    task = run.recipe.task.name
    begin: list[str] = []
    if not run.is_new:
        begin = ["--resume"]
    elif start is not None:
        begin = ["--init-from", str(start)]
    where = ["--recipe", str(file), "--output", str(run.folder)]
    return [declared(task).verb, task, *where, *begin, *run.overrides]


def _write_comparison(grid: "Grid", runs: Sequence[AblationRun], folder: Path, outputs: "Outputs") -> str:
    """The comparison of what is finished, written into the folder; its text. Raises UserError where every variant has a
    run and none has a metric."""
    from fiber_cli.training.ablation import as_markdown, as_text, comparison, picture, table

    results = _results(grid, runs)
    rows = table(grid, results)
    contents: dict[str, Any] = {
        "json": dump_json(comparison(grid, results), indent=2) + "\n",
        "md": as_markdown(rows),
        "txt": as_text(rows) + "\n",
        "png": picture(grid, results),
    }
    for ending, content in contents.items():
        outputs.write(folder / f"{COMPARISON}.{ending}", content)
    if all(each.runs for each in results):
        _refuse_unknown_metrics(grid, results)
    return as_text(rows)


def _results(grid: "Grid", runs: Sequence[AblationRun]) -> "list[VariantResults]":
    from fiber_cli.training.ablation import RunResult, VariantResults, read_run

    results = []
    for variant in grid.variants:
        of_variant: dict[int, RunResult] = {}
        for run in runs:
            if run.variant is not variant:
                continue
            ended = read_run(run.folder, list(run.evaluations))
            if ended is not None:
                of_variant[run.seed] = ended
        results.append(VariantResults(variant, of_variant))
    return results


def _tell_missing_metrics(run: AblationRun, metrics: Sequence[str]) -> None:
    """A word where what the others are compared with lacks a column: a misspelt one is known after the first run."""
    from fiber_cli.training.ablation import read_run

    ended = read_run(run.folder, list(run.evaluations))
    if ended is None:
        return
    missing = [metric for metric in metrics if metric not in ended.metrics]
    if missing:
        lacks, has = ", ".join(missing), ", ".join(sorted(ended.metrics))
        say(f"ablate: {run.variant.name}, which the others are compared with, has no {lacks}; it has {has}")


def _refuse_unknown_metrics(grid: "Grid", results: "Sequence[VariantResults]") -> None:
    """UserError for a column without a figure, which is misspelt or not measured."""
    measured: set[str] = set()
    for each in results:
        for run in each.runs.values():
            measured.update(run.metrics)
    missing = [metric for metric in grid.metrics if metric not in measured]
    if missing:
        raise UserError(
            f"metrics {', '.join(missing)}: no run has them; there are {', '.join(sorted(measured))}; the same command "
            "with --metric draws the comparison of these"
        )
