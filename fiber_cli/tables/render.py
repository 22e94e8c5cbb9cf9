"""A table and its plan as text, as Markdown and as plain values for JSON."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from fiber_cli.characters import one_line
from fiber_cli.tables.commands import placed
from fiber_cli.tables.costs import total
from fiber_cli.tables.plan import Need, Planner, RowPlan, StageNeed
from fiber_cli.tables.results import Figure
from fiber_cli.tables.rows import Cell, Row, Table

MISSING, NO_NUMBER = "missing", "–"
#: Marks a figure of a part of the data.
PART = "*"
LINES = ("ours", "paper", "difference")
_LABEL_WIDTH, _LEAST_WIDTH = 31, 9


class Measured(NamedTuple):
    """A cell and our figure."""

    cell: Cell
    figure: Figure

    @property
    def difference(self) -> float | None:
        """Ours less the paper's; None where either is missing, and of a part of the data."""
        if self.figure.value is None or self.cell.paper is None or self.figure.partial is not None:
            return None
        return self.figure.value - self.cell.paper

    @property
    def lines(self) -> tuple[str, str, str]:
        """Ours, the paper's, and the difference, in words."""
        ours = MISSING
        if self.figure.value is not None:
            ours = f"{self.figure.value:.2f}{PART if self.figure.partial else ''}"
        elif self.cell.server is not None and self.figure.file is not None:
            ours = "to send"
        paper = NO_NUMBER if self.cell.paper is None else f"{self.cell.paper:.2f}"
        difference = NO_NUMBER if self.difference is None else f"{self.difference:+.2f}"
        return ours, paper, difference


class MeasuredTable:
    """A table with our figures beside the paper's. figure_of: ours of a cell; notes: what the reader must know besides
    what the table and the figures say."""

    def __init__(self, table: Table, figure_of: Callable[[Cell], Figure], notes: Iterable[str] = ()):
        self.table = table
        self.rows: list[tuple[Row, list[Measured]]] = []
        for row in table.rows:
            self.rows.append((row, [Measured(cell, figure_of(cell)) for cell in row.cells]))
        self.notes = list(dict.fromkeys([*table.notes, *self._notes(), *notes]))

    def _notes(self) -> Iterator[str]:
        for row, cells in self.rows:
            for measured in cells:
                figure = measured.figure
                place = f"{row.label}, {measured.cell.column}"
                if figure.partial is not None:
                    yield f"{PART} {place}: over {figure.partial}, so not compared"
                if figure.note is not None:
                    yield f"{place}: {figure.note}"

    @property
    def missing(self) -> int:
        """How many figures there are none of."""
        count = 0
        for _, cells in self.rows:
            count += sum(measured.figure.value is None for measured in cells)
        return count

    def as_json(self) -> dict[str, Any]:
        """The table as plain values; what is missing is null."""
        rows = []
        for row, cells in self.rows:
            rows.append({"row": row.label, "figures": [_figure_as_json(measured) for measured in cells]})
        return {"table": self.table.name, "title": self.table.heading, "rows": rows, "notes": self.notes}

    def as_text(self) -> str:
        """The table for the screen."""
        columns = self.table.columns
        widths = [max(_LEAST_WIDTH, len(column) + 2) for column in columns]
        lines = [self.table.heading, _text_line("", "", columns, widths)]
        for label, line, words in self._lines(columns):
            lines.append(_text_line(label, line, words, widths))
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(map(one_line, lines))

    def as_markdown(self) -> str:
        """The table in Markdown."""
        columns = self.table.columns
        lines = [f"## {self.table.heading}", ""]
        lines.append(_markdown_line(["", "", *columns]))
        lines.append(_markdown_line(["---", "---", *["---:"] * len(columns)]))
        for label, line, words in self._lines(columns):
            lines.append(_markdown_line([label, line, *words]))
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(map(one_line, lines))

    def _lines(self, columns: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
        """Label, "ours" or another, and a cell for every column."""
        for row, cells in self.rows:
            by_column = {measured.cell.column: measured.lines for measured in cells}
            for number, line in enumerate(LINES):
                words = [by_column[column][number] if column in by_column else "" for column in columns]
                yield "" if number else row.label, line, words


def _text_line(label: str, line: str, words: Sequence[str], widths: Sequence[int]) -> str:
    padded = [f"{word:>{width}}" for word, width in zip(words, widths, strict=True)]
    return f"{label:<{_LABEL_WIDTH}} {line:<10}{''.join(padded)}".rstrip()


def _markdown_line(words: Sequence[str]) -> str:
    escaped = [word.replace("|", "\\|") for word in words]
    return f"| {' | '.join(escaped)} |"


def _figure_as_json(measured: Measured) -> dict[str, Any]:
    cell, figure = measured
    return {
        "column": cell.column,
        "metric": cell.metric,
        "ours": figure.value,
        "paper": cell.paper,
        "difference": measured.difference,
        "partial": figure.partial,
        "note": figure.note,
        "file": None if figure.file is None else str(figure.file),
        "server": cell.server,
    }


class PlannedTable:
    """A table with what each of its rows needs."""

    def __init__(self, table: Table, planner: Planner):
        self.table = table
        self.planner = planner
        self.rows: list[RowPlan] = list(planner.rows(table))

    def as_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        rows = []
        for plan in self.rows:
            needs = [self._need_as_json(need) for need in plan.needs]
            rows.append({"row": plan.row.label, "state": row_state(plan), "needs": needs})
        return {"table": self.table.name, "title": self.table.heading, "rows": rows}

    def _need_as_json(self, need: Need) -> dict[str, Any]:
        checkpoints = []
        for stage in need.stages:
            checkpoints.append(
                {
                    "run": str(self.planner.runs / stage.stage.run),
                    "recipe": stage.stage.recipe,
                    "state": stage.state,
                    "command": self._command(stage.stage.training.arguments),
                    "data": {"there": stage.files.there, "missing": stage.files.missing},
                    "hub": stage.hub,
                    "gpu_hours": stage.cost.gpu_hours,
                    "gpu": stage.cost.gpu,
                }
            )
        return {
            "columns": need.columns,
            "state": need.state,
            "command": None if need.command is None else self._command(need.command.arguments),
            "checkpoints": checkpoints,
            "data": {"there": need.files.there, "missing": need.files.missing, "partial": need.files.partial},
            "missing": need.missing,
            "programs": need.programs,
            "server": need.server,
            "cost": [str(cost) for cost in total(list(need.costs))],
        }

    def _command(self, arguments: Sequence[str]) -> str:
        return shlex.join(["fiber", *placed(arguments, self.planner.data, self.planner.runs)])

    def as_text(self) -> str:
        """The plan for the screen; the trainings stand in a list of their own (`stages_as_text`)."""
        lines = [self.table.heading]
        for plan in self.rows:
            lines.append(f"  {plan.row.label}: {row_state(plan)}")
            for need in plan.needs:
                lines += [f"    {line}" for line in self._need_lines(need)]
        return "\n".join(map(one_line, lines))

    def _need_lines(self, need: Need) -> Iterator[str]:
        yield f"{', '.join(need.columns)}: {need.state}"
        if need.problem is not None:
            yield f"  {need.problem}"
        if need.stages:
            words = [f"{self.planner.runs / stage.stage.run} ({stage.state})" for stage in need.stages]
            yield f"  checkpoints: {', '.join(words)}"
        if need.files.there:
            yield f"  data there: {', '.join(need.files.there)}"
        if need.files.partial is not None:
            yield f"  data in part: {need.files.partial}"
        if need.missing and need.problem is None:
            yield f"  data missing: {', '.join(need.missing)}"
        if need.programs:
            yield f"  not installed: {', '.join(need.programs)}"
        if need.command is not None:
            yield f"  command: {self._command(need.command.arguments)}"
        if need.server is not None:
            yield f"  scored by a test server: {need.server}"
        if need.costs:
            yield f"  cost of what is to be made: {_costs_in_words(need)}"


def row_state(plan: RowPlan) -> str:
    """The state of a row, by its figures: one word where all have the same."""
    states = list(dict.fromkeys(need.state for need in plan.needs))
    if len(states) == 1:
        return states[0]
    counted = []
    for state in states:
        columns = sum(len(need.columns) for need in plan.needs if need.state == state)
        counted.append(f"{columns} {state}")
    return ", ".join(counted)


def _costs_in_words(need: Need) -> str:
    return " and ".join(map(str, total(list(need.costs))))


def stages_as_text(tables: Sequence[PlannedTable]) -> str:
    """The trainings of all rows, in an order in which they can be made, with their data and cost."""
    stages: dict[str, StageNeed] = {}
    for table in tables:
        for plan in table.rows:
            for need in plan.needs:
                stages |= {stage.stage.run: stage for stage in need.stages}
    lines = ["Trainings, in order"]
    for run, stage in stages.items():
        start = f", from {stage.stage.starts_from}" if stage.stage.starts_from else ""
        lines.append(f"  {run}{start}: {stage.state}; {stage.cost}")
        if stage.files.there:
            lines.append(f"    data there: {', '.join(stage.files.there)}")
        if stage.files.missing:
            lines.append(f"    data missing: {', '.join(stage.files.missing)}")
        if stage.hub:
            lines.append(f"    from the Hugging Face hub on first use: {', '.join(stage.hub)}")
    open_costs = [stage.cost for stage in stages.values() if stage.state != "finished"]
    sums = " and ".join(map(str, total(open_costs)))
    lines.append(f"  all that are not finished: {sums or 'none'}")
    return "\n".join(map(one_line, lines))
