"""What each row of a table needs: checkpoints, data and programs, which of them are there, and what the rest costs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from fiber_cli.config.recipe import Recipe
from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.tables.commands import (
    HeaderCommand,
    Stage,
    chain,
    evaluation_command,
    stage_of,
    tuning_command,
)
from fiber_cli.tables.costs import TUNED_IMAGES, UNKNOWN, Cost, evaluation_cost, training_cost, tuning_cost
from fiber_cli.tables.needs import (
    JAVA_METRICS,
    Files,
    evaluation_files,
    hub_files,
    missing_programs,
    training_files,
    tuning_files,
)
from fiber_cli.tables.results import Results, run_state
from fiber_cli.tables.rows import Cell, Evaluated, Row, Source, Table, Tuned
from fiber_cli.tables.settings import settings_for

#: there: the figures are; to send: the predictions are, and a test server scores them; to make: nothing is missing; in
#: part: what is there of the data gives a figure of that part; missing: something that fiber cannot make is.
State = Literal["there", "to send", "to make", "in part", "missing"]


class StageNeed(NamedTuple):
    """A training that a figure needs. state: see `results.run_state`; files: what it reads; hub: what it takes from the
    Hugging Face hub; cost: of all of it."""

    stage: Stage
    state: str
    files: Files
    hub: tuple[str, ...]
    cost: Cost


class Need(NamedTuple):
    """What some figures of a row need, which one command makes. command: None where the training itself has them;
    files: what the command reads; programs: what is not installed of what some metrics need; problem: why no command
    makes them; costs: of what is still to be made."""

    columns: tuple[str, ...]
    source: Source
    state: State
    stages: tuple[StageNeed, ...]
    command: HeaderCommand | None
    files: Files
    programs: tuple[str, ...]
    problem: str | None
    server: str | None
    costs: tuple[Cost, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """What fiber cannot make: data of the command and of the trainings that are not finished."""
        words = [] if self.problem is None else [self.problem]
        for need in self.unfinished:
            words += need.files.missing
        return tuple(dict.fromkeys([*words, *self.files.missing]))

    @property
    def unfinished(self) -> list[StageNeed]:
        """The trainings that are to be made, the first one first."""
        return [need for need in self.stages if need.state != "finished"]


class RowPlan(NamedTuple):
    """A row and the needs of its figures."""

    row: Row
    needs: tuple[Need, ...]


class Planner:
    """Knows what is there. runs: the folder of all runs; data: that of the data sets, the recipes' data.root; settings:
    put over all recipes."""

    def __init__(self, results: Results, data: Path, settings: Sequence[str] = ()):
        self.results = results
        self.runs = results.runs
        self.data = data.absolute()
        self.settings = tuple(settings)
        self._recipes: dict[str, Recipe] = {}
        self._files: dict[str, tuple[Files, tuple[str, ...]]] = {}

    def recipe(self, name: str) -> Recipe:
        """A recipe with this data and these settings. Raises UserError."""
        if name not in self._recipes:
            over = [f"data.root={self.data}", *settings_for(name, self.settings)]
            self._recipes[name] = resolve_recipe(name, over)
        return self._recipes[name]

    def rows(self, table: Table) -> Iterator[RowPlan]:
        """Every row of a table."""
        for row in table.rows:
            yield RowPlan(row, tuple(self.needs(row)))

    def needs(self, row: Row) -> Iterator[Need]:
        """The figures of a row, those together that one command makes."""
        groups: dict[tuple[Source, ...], list[Cell]] = {}
        for cell in row.cells:
            groups.setdefault(cell.sources, []).append(cell)
        for cells in groups.values():
            yield self.need(cells)

    def need(self, cells: Sequence[Cell]) -> Need:
        """What figures with the same sources need."""
        source = cells[0].sources[0]
        if isinstance(source, Tuned):
            return self._of_tunings(source, cells)
        stage = stage_of(source)
        command = evaluation_command(source) if isinstance(source, Evaluated) else None
        if stage is None or (command is None and isinstance(source, Evaluated)):
            start = f" from runs/{source.starts_from}" if source.starts_from else ""
            problem = f"no recipe's header has the command of {source.recipe}{start}"
            return self._need(cells, source, [], None, Files(), problem, UNKNOWN)
        if command is None:
            return self._need(cells, source, [stage.run], None, Files(), None, None)
        assert isinstance(source, Evaluated)
        runs = [command.run("--checkpoint"), command.run("--itm-checkpoint")]
        task = self.recipe(source.recipe).task.name
        files = evaluation_files(command, task, self.data, self.runs)
        cost = evaluation_cost(source.dataset, source.mode)
        return self._need(cells, source, runs, command, files, None, cost)

    def _of_tunings(self, source: Tuned, cells: Sequence[Cell]) -> Need:
        command = tuning_command(source)
        if command is None:
            problem = f"no call of fiber odinw in the header of {source.recipe}"
            return self._need(cells, source, [], None, Files(), problem, UNKNOWN)
        draws = tuning_files(self.data, source.shots)
        words = [*command.arguments]
        words[words.index("--shots") + 1] = str(source.shots)
        if draws.seeds:
            words[words.index("--seeds") + 1] = ",".join(map(str, draws.seeds))
        command = command._replace(arguments=tuple(words))
        cost = tuning_cost(TUNED_IMAGES[source.shots])
        return self._need(cells, source, [command.run("--init-from")], command, draws.files, None, cost)

    def _need(
        self,
        cells: Sequence[Cell],
        source: Source,
        runs: Sequence[str | None],
        command: HeaderCommand | None,
        files: Files,
        problem: str | None,
        cost: Cost | None,
    ) -> Need:
        needed: dict[str, StageNeed] = {}
        for run in runs:
            if run is not None:
                needed |= {stage.run: self.stage_need(stage) for stage in chain(run)}
        programs = dict.fromkeys(filter(None, (missing_programs(cell.metric) for cell in cells)))
        costs = [need.cost for need in needed.values() if need.state != "finished"]
        need = Need(
            tuple(cell.column for cell in cells),
            source,
            "missing",
            tuple(needed.values()),
            command,
            files,
            tuple(programs),
            problem,
            cells[0].server,
            tuple(costs + ([] if cost is None else [cost])),
        )
        state = self._state(cells, need)
        is_made = state in ("there", "to send")
        return need._replace(state=state, costs=() if is_made else need.costs)

    def _state(self, cells: Sequence[Cell], need: Need) -> State:
        if self.is_made(cells, need):
            values = [self.results.figure(cell).value for cell in cells]
            return "to send" if need.server is not None and None in values else "there"
        if need.missing:
            return "missing"
        return "to make" if need.files.partial is None else "in part"

    def is_made(self, cells: Sequence[Cell], need: Need) -> bool:
        """Whether nothing more can be had of the figures with what is there."""
        return all(self._is_final(cell, need) for cell in cells)

    def _is_final(self, cell: Cell, need: Need) -> bool:
        figure = self.results.figure(cell)
        if figure.file is None:
            return False
        if figure.partial is not None and need.files.partial is None and not need.missing:
            return False  # the rest of the data has come since
        is_to_send = need.server is not None
        if figure.value is not None or is_to_send:
            return True
        # Measured without it: once more where a program was missing that is there now.
        return cell.metric not in JAVA_METRICS or missing_programs(cell.metric) is not None

    def stage_need(self, stage: Stage) -> StageNeed:
        """How far a training is and what it reads."""
        if stage.run not in self._files:
            recipe = self.recipe(stage.recipe)
            self._files[stage.run] = training_files(recipe, self.data), hub_files(recipe)
        files, hub = self._files[stage.run]
        return StageNeed(stage, run_state(self.runs / stage.run), files, hub, training_cost(stage.recipe))
