"""What `fiber table` does: prints tables or their plans, makes what they lack."""

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fiber_cli.characters import one_line
from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.run_files import CHECKPOINTS, EVALUATIONS
from fiber_cli.distributed.folder_lock import locked
from fiber_cli.errors import EXIT_OK, UserError
from fiber_cli.outputs import Outputs
from fiber_cli.printing import say, show, show_json
from fiber_cli.tables.commands import stages
from fiber_cli.tables.departures import Departures, runs_behind
from fiber_cli.tables.make import Maker
from fiber_cli.tables.paper import TABLES
from fiber_cli.tables.picture import few_shot_curve
from fiber_cli.tables.plan import Planner
from fiber_cli.tables.render import MeasuredTable, PlannedTable, stages_as_text
from fiber_cli.tables.results import Figure, Results
from fiber_cli.tables.retrieval import Retrieval, RetrievalTable
from fiber_cli.tables.rows import Table
from fiber_cli.tables.settings import check_settings
from fiber_cli.text_files import dump_json

ALL = "all"
#: The table that is also drawn, and its picture.
DRAWN, PICTURE = "fig5", "figure5.png"
Form = Literal["text", "markdown", "json"]


class Asked(NamedTuple):
    """runs: the folder of all runs; data: that of all data sets; results: others with evaluations below them; settings:
    put over all recipes; nproc: processes of a command; extra: command → options of it; precision: of what is made,
    where it is one of them."""

    name: str
    runs: Path
    data: Path | None
    results: Sequence[Path] = ()
    settings: Sequence[str] = ()
    nproc: int = 1
    extra: dict[str, list[str]] | None = None
    precision: str | None = None

    @property
    def tables(self) -> list[Table]:
        """Those that are asked for."""
        return list(TABLES.values()) if self.name == ALL else [TABLES[self.name]]


class Shown(NamedTuple):
    """How tables are shown. output: a folder for them in every form; force: whether files there may be replaced that
    fiber did not write."""

    form: Form
    output: Path | None = None
    force: bool = False


def show_plan(asked: Asked, shown: Shown) -> None:
    """Print what each row needs. Raises UserError."""
    planner = _planner(asked, Results(asked.runs, asked.results))
    tables = [PlannedTable(table, planner) for table in asked.tables]
    if shown.form == "json":
        show_json([table.as_json() for table in tables])
        return
    show("\n\n".join([stages_as_text(tables), *(table.as_text() for table in tables)]))


def make_and_show(asked: Asked, shown: Shown) -> int:
    """Make what is missing and print the tables; the exit code. Raises UserError."""
    results = Results(asked.runs, asked.results)
    planner = _planner(asked, results)
    cells = [cell for table in asked.tables for cell in table.cells]
    with locked(asked.runs):
        _tell_precisions(asked.precision, results, map(results.figure, cells))
        code = Maker(planner, asked.nproc, asked.extra or {}).make(asked.tables)
    results.read()
    show_tables(measured_tables(asked, results), shown)
    return code


def _tell_precisions(asked: str | None, results: Results, figures: Iterable[Figure]) -> None:
    """Say which figures are there in another precision than the one that is asked for. Those of `fiber odinw`, which
    are means, are not looked at."""
    others = Counter(map(results.precision_of, figures))
    for precision in (None, asked):
        del others[precision]
    if asked is None or not others:
        return
    named = ", ".join(f"{count} in {precision}" for precision, count in sorted(others.items()))
    say(
        f"table: figures that are there: {named}; --precision {asked} is of what is made: "
        "for these too, remove the folders of their results.json"
    )


def show_measured(asked: Asked, shown: Shown) -> None:
    """Print the tables from what is finished. Raises UserError."""
    tables = measured_tables(asked, Results(asked.runs, asked.results))
    show_tables(tables, shown)
    missing = sum(table.missing for table in tables)
    if missing:
        say(f"{missing} figures are missing; `fiber table {asked.name} --plan --data DIR` says what they need")


def measured_tables(asked: Asked, results: Results) -> list[MeasuredTable]:
    """The tables with our figures."""
    departures = Departures(asked.runs)
    return [MeasuredTable(table, results.figure, departures.of(table)) for table in asked.tables]


def _planner(asked: Asked, results: Results) -> Planner:
    if asked.data is None:
        raise UserError("--plan and --run need --data, the folder of all data sets")
    if not asked.data.is_dir():
        raise UserError(f"--data {asked.data}: no such folder; name the one that the recipes have as data.root")
    # What is put over the recipes of all tables may be put over those of one.
    check_settings(asked.settings, recipes_of(asked.tables), recipes_of(TABLES.values()))
    return Planner(results, asked.data, asked.settings)


def recipes_of(tables: Iterable[Table]) -> list[str]:
    """The recipes of all trainings behind tables, each once."""
    recipes: dict[str, None] = {}
    for table in tables:
        for run in runs_behind(table):
            recipes[stages()[run].recipe] = None
    return list(recipes)


def show_retrieval(retrieval: Retrieval, asked: Asked, shown: Shown, *, is_plan: bool) -> int:
    """Table 4 of one data set by named checkpoints, for which what is missing is evaluated; as a plan what that would
    be. Returns the exit code. Raises UserError."""
    table = RetrievalTable(retrieval, Results(asked.runs, [*_beside(retrieval), *asked.results]))
    if is_plan:
        _show_commands(table, shown)
        return EXIT_OK
    _tell_precisions(asked.precision, table.results, map(table.figure, table.table.cells))
    code = table.make(asked.nproc, asked.extra or {})
    if code == EXIT_OK:
        show_tables([MeasuredTable(table.table, table.figure)], shown)
    return code


def _beside(retrieval: Retrieval) -> list[Path]:
    """Where `fiber eval` writes results of a checkpoint: in its run, else in the current folder."""
    checkpoint = resolve(retrieval.checkpoint)
    folders = [Path(EVALUATIONS)]
    if checkpoint.parent.name == CHECKPOINTS:
        folders.append(checkpoint.parent.parent)
    return folders


def _show_commands(table: RetrievalTable, shown: Shown) -> None:
    commands = [shlex.join(["fiber", *command]) for command in table.commands()]
    rows: list[dict[str, Any]] = []
    for row in table.table.rows:
        is_there = all(table.figure(cell).value is not None for cell in row.cells)
        rows.append({"row": row.label, "state": "there" if is_there else "to make"})
    if shown.form == "json":
        show_json([{"table": table.table.name, "title": table.table.heading, "rows": rows, "commands": commands}])
        return
    lines = [table.table.heading, *table.table.notes]
    lines += [f"  {row['row']}: {row['state']}" for row in rows]
    lines += [f"  to be run: {command}" for command in commands]
    show("\n".join(map(one_line, lines)))


def show_tables(tables: Sequence[MeasuredTable], shown: Shown) -> None:
    """Print tables, and write them where a folder is named. Raises UserError."""
    if shown.output is not None:
        write_tables(tables, shown.output, Outputs(force=shown.force))
    if shown.form == "json":
        show_json([table.as_json() for table in tables])
    elif shown.form == "markdown":
        show("\n\n".join(table.as_markdown() for table in tables))
    else:
        show("\n\n".join(table.as_text() for table in tables))


def write_tables(tables: Sequence[MeasuredTable], folder: Path, outputs: Outputs) -> None:
    """Every table as text, Markdown and JSON, and Figure 5 as a picture. Raises UserError."""
    contents: dict[str, str | bytes] = {}
    for table in tables:
        name = table.table.name
        stem = PICTURE.removesuffix(".png") if name == DRAWN else f"table{name}"
        contents[f"{stem}.txt"] = table.as_text() + "\n"
        contents[f"{stem}.md"] = table.as_markdown() + "\n"
        contents[f"{stem}.json"] = dump_json(table.as_json(), indent=2) + "\n"
        if name == DRAWN:
            contents[PICTURE] = few_shot_curve(table)
    for name in contents:
        outputs.check(folder / name)
    for name, content in contents.items():
        outputs.write(folder / name, content)
