"""A table and its plan as text, as Markdown and as plain values for JSON."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from fiber_cli.characters import one_line
from fiber_cli.tables.commands import HeaderCommand
from fiber_cli.tables.costs import BASES, total
from fiber_cli.tables.plan import Need, Planner, RowPlan, StageNeed
from fiber_cli.tables.results import Figure
from fiber_cli.tables.rows import Cell, Row, Table

MISSING, TO_SEND, NO_NUMBER = "missing", "to send", "–"
#: Marks a figure of a part of the data.
PART = "*"
LINES = ("ours", "paper", "difference")
NO_CELL = ("", "", "")
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
        return self._ours(), in_words(self.cell.paper, ".2f"), in_words(self.difference, "+.2f")

    def _ours(self) -> str:
        value, partial = self.figure.value, self.figure.partial
        if value is None:
            is_sent = self.cell.server is not None and self.figure.file is not None
            return TO_SEND if is_sent else MISSING
        words = in_words(value, ".2f")
        return words if partial is None else words + PART


def in_words(value: float | None, form: str) -> str:
    """A number, or that there is none."""
    return NO_NUMBER if value is None else format(value, form)


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
                place = f"{row.label.strip()}, {measured.cell.column}"
                if figure.partial is not None:
                    yield f"{PART} {place}: over {figure.partial}, so not compared"
                if figure.note is not None:
                    yield f"{place}: {figure.note}"

    @property
    def missing(self) -> int:
        """How many figures there are none of."""
        count = 0
        for _, cells in self.rows:
            for measured in cells:
                count += measured.figure.value is None
        return count

    def as_json(self) -> dict[str, Any]:
        """The table as plain values; what is missing is null."""
        rows = []
        for row, cells in self.rows:
            rows.append({"row": row.label, "figures": list(map(_figure_as_json, cells))})
        return {"table": self.table.name, "title": self.table.heading, "rows": rows, "notes": self.notes}

    def as_text(self) -> str:
        """The table for the screen."""
        columns = self.table.columns
        widths = [max(_LEAST_WIDTH, len(column) + 2) for column in columns]
        lines = [self.table.heading, _text_line("", "", columns, widths)]
        for label, line, words in self._lines(columns):
            lines.append(_text_line(label, line, words, widths))
        lines += indented(self.notes, 2)
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
        """Label, "ours" or another, and a cell for every column; ours alone of a row without a number of the paper."""
        for row, cells in self.rows:
            by_column = {measured.cell.column: measured.lines for measured in cells}
            label = row.label
            has_numbers = any(measured.cell.paper is not None for measured in cells)
            shown = LINES if has_numbers else LINES[:1]
            for number, line in enumerate(shown):
                words = []
                for column in columns:
                    of_cell = by_column.get(column, NO_CELL)
                    words.append(of_cell[number])
                yield label, line, words
                label = ""


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
        "file": figure.file and str(figure.file),
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
            needs = list(map(self._need_as_json, plan.needs))
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
                    "preparation": [in_shell(self.planner.preparation_words(each)) for each in stage.unprepared],
                    "command": in_shell(self.planner.training_words(stage)),
                    "data": {"there": stage.files.there, "missing": stage.files.missing},
                    "hub": stage.hub,
                    "gpu_hours": stage.cost.gpu_hours,
                    "gpu": stage.cost.gpu,
                    "basis": stage.cost.basis,
                }
            )
        return {
            "columns": need.columns,
            "state": need.state,
            "command": need.command and self._command(need.command),
            "checkpoints": checkpoints,
            "data": {"there": need.files.there, "missing": need.files.missing, "partial": need.files.partial},
            "missing": need.missing,
            "programs": need.programs,
            "server": need.server,
            "cost": [str(cost) for cost in total(list(need.costs))],
        }

    def _command(self, command: HeaderCommand) -> str:
        return in_shell(self.planner.words(command))

    def as_text(self) -> str:
        """The plan for the screen; the trainings stand in a list of their own (`stages_as_text`)."""
        lines = [self.table.heading]
        for plan in self.rows:
            lines.append(f"  {plan.row.label}: {row_state(plan)}")
            for need in plan.needs:
                lines += indented(self._need_lines(need), 4)
        return "\n".join(map(one_line, lines))

    def _need_lines(self, need: Need) -> Iterator[str]:
        yield f"{', '.join(need.columns)}: {need.state}"
        if need.problem is not None:
            yield f"  {need.problem}"
        if need.stages:
            yield f"  checkpoints: {', '.join(map(self._run_in_words, need.stages))}"
        if need.files.there:
            yield f"  data there: {', '.join(need.files.there)}"
        if need.files.partial is not None:
            yield f"  data in part: {need.files.partial}"
        if need.missing and need.problem is None:
            yield f"  data missing: {', '.join(need.missing)}"
        if need.programs:
            yield f"  not installed: {', '.join(need.programs)}"
        if need.command is not None:
            yield f"  command: {self._command(need.command)}"
        if need.server is not None:
            yield f"  scored by a test server: {need.server}"
        if need.costs:
            yield f"  cost of what is to be made: {_costs_in_words(need)}"

    def _run_in_words(self, need: StageNeed) -> str:
        return f"{self.planner.runs / need.stage.run} ({need.state})"


def in_shell(words: Sequence[str]) -> str:
    """Arguments of `fiber` as a line for a shell."""
    return shlex.join(["fiber", *words])


def row_state(plan: RowPlan) -> str:
    """The state of a row, by its figures: one word where all have the same."""
    columns: dict[str, int] = {}
    for need in plan.needs:
        columns[need.state] = columns.get(need.state, 0) + len(need.columns)
    if len(columns) == 1:
        return next(iter(columns))
    return ", ".join(f"{count} {state}" for state, count in columns.items())


def _costs_in_words(need: Need) -> str:
    return " and ".join(map(str, total(list(need.costs))))


def stages_as_text(tables: Sequence[PlannedTable]) -> str:
    """The trainings of all rows, in an order in which they can be made, with their data and cost."""
    lines = ["Trainings, in order"]
    to_make = []
    for need in _stages_of(tables).values():
        lines += indented(_stage_lines(need), 2)
        if need.state != "finished":
            to_make.append(need.cost)
    sums = " and ".join(map(str, total(to_make)))
    lines.append(f"  all that are not finished: {sums or 'none'}")
    lines += indented(BASES, 2)
    return "\n".join(map(one_line, lines))


def _stages_of(tables: Sequence[PlannedTable]) -> dict[str, StageNeed]:
    """The trainings of all rows by the name of their run."""
    stages: dict[str, StageNeed] = {}
    for table in tables:
        for plan in table.rows:
            for need in plan.needs:
                for stage in need.stages:
                    stages[stage.stage.run] = stage
    return stages


def _stage_lines(need: StageNeed) -> Iterator[str]:
    name = need.stage.run
    if need.stage.starts_from is not None:
        name += f", from {need.stage.starts_from}"
    yield f"{name}: {need.state}; {need.cost}"
    if need.files.there:
        yield f"  data there: {', '.join(need.files.there)}"
    if need.files.missing:
        yield f"  data missing: {', '.join(need.files.missing)}"
    for prepared in need.unprepared:
        yield f"  made before it: {prepared.file}, by fiber {prepared.command.verb}"
    if need.hub:
        yield f"  from the Hugging Face hub on first use: {', '.join(need.hub)}"


def indented(lines: Iterable[str], spaces: int) -> list[str]:
    """Lines with so many spaces before each."""
    return [" " * spaces + line for line in lines]
