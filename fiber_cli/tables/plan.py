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
    placed,
    source_command,
    source_runs,
    stage_of,
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
from fiber_cli.tables.preparation import Prepared, prepared_files
from fiber_cli.tables.results import Figure, Results, run_state
from fiber_cli.tables.rows import Cell, Evaluated, Row, Source, Table, Trained, Tuned
from fiber_cli.tables.settings import settings_for

#: there: the figures are; to send: the predictions are, and a test server scores them; to make: nothing is missing; in
#: part: what is there of the data gives a figure of that part; missing: something that fiber cannot make is.
State = Literal["there", "to send", "to make", "in part", "missing"]


class StageNeed(NamedTuple):
    """A training that a figure needs. state: see `results.run_state`; files: what it reads; hub: what it takes from the
    Hugging Face hub; prepared: what is made before it; cost: of all of it."""

    stage: Stage
    state: str
    files: Files
    hub: tuple[str, ...]
    prepared: tuple[Prepared, ...]
    cost: Cost

    @property
    def unprepared(self) -> list[Prepared]:
        """What is still to be made before it."""
        if self.state == "finished":
            return []
        return [each for each in self.prepared if not each.file.is_file()]


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
        words: list[str] = []
        if self.problem is not None:
            words.append(self.problem)
        for need in self.unfinished:
            words += need.files.missing
        return tuple(dict.fromkeys([*words, *self.files.missing]))

    @property
    def unfinished(self) -> list[StageNeed]:
        """The trainings that are to be made, the first one first."""
        return [need for need in self.stages if need.state != "finished"]


class _Inquiry(NamedTuple):
    """What measures a figure, as `Need` has it, its trainings apart."""

    command: HeaderCommand | None = None
    files: Files = Files()
    problem: str | None = None
    costs: tuple[Cost, ...] = ()


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

    def words(self, command: HeaderCommand) -> list[str]:
        """The arguments of `fiber` of a header's command: with the folders of these data and runs, and with the
        settings, where it goes by a recipe."""
        words = placed(command.arguments, self.data, self.runs)
        if command.verb in ("eval", "rerank"):
            return words
        return words + settings_for(command.recipe, self.settings)

    def preparation_words(self, prepared: Prepared) -> list[str]:
        """Likewise of what is made before a training."""
        return [*self.words(prepared.command), "--output", str(prepared.file)]

    def training_words(self, need: StageNeed) -> list[str]:
        """Likewise of a training that begins."""
        words = self.words(need.stage.training)
        for prepared in need.prepared:
            words.append(prepared.setting)
        return words

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
        inquiry = self._inquiry(source)
        stages: dict[str, StageNeed] = {}
        costs = []
        for run in source_runs(source):
            for link in self._needed_links(run):
                stages[link.stage.run] = link
        for stage_need in stages.values():
            if stage_need.state != "finished":
                costs.append(stage_need.cost)
        need = Need(
            tuple(cell.column for cell in cells),
            source,
            "missing",
            tuple(stages.values()),
            inquiry.command,
            inquiry.files,
            tuple(_programs(cells)),
            inquiry.problem,
            cells[0].server,
            tuple(costs) + inquiry.costs,
        )
        state = self._state(cells, need)
        if state in ("there", "to send"):
            return need._replace(state=state, costs=())
        return need._replace(state=state)

    def _needed_links(self, run: str) -> list[StageNeed]:
        """The trainings that lead to a run, from the last one that is finished on: what that started from is not needed
        any more."""
        links: list[StageNeed] = []
        for stage in reversed(chain(run)):
            links.append(self.stage_need(stage))
            if links[-1].state == "finished":
                break
        return links[::-1]

    def _inquiry(self, source: Source) -> _Inquiry:
        command = source_command(source)
        is_trained = isinstance(source, Trained) and stage_of(source) is not None
        if command is None and is_trained:
            return _Inquiry()
        if command is None:
            start = "" if source.starts_from is None else f" from runs/{source.starts_from}"
            return _Inquiry(problem=f"no recipe's header has the command of {source.recipe}{start}", costs=(UNKNOWN,))
        if isinstance(source, Tuned):
            return self._of_tunings(source, command)
        assert isinstance(source, Evaluated)
        task = self.recipe(source.recipe).task.name
        files = evaluation_files(command, task, self.data, self.runs)
        return _Inquiry(command, files, costs=(evaluation_cost(source.dataset, source.mode),))

    def _of_tunings(self, source: Tuned, command: HeaderCommand) -> _Inquiry:
        draws = tuning_files(self.data, source.shots)
        words = list(command.arguments)
        words[words.index("--shots") + 1] = str(source.shots)
        if draws.seeds:
            words[words.index("--seeds") + 1] = ",".join(map(str, draws.seeds))
        cost = tuning_cost(TUNED_IMAGES[source.shots])
        return _Inquiry(command._replace(arguments=tuple(words)), draws.files, costs=(cost,))

    def _state(self, cells: Sequence[Cell], need: Need) -> State:
        figures = [self.results.figure(cell) for cell in cells]
        is_final = map(self._is_final, cells, figures, [need] * len(cells))
        if all(is_final):
            is_whole = all(figure.value is not None for figure in figures)
            return "there" if is_whole or need.server is None else "to send"
        if need.missing:
            return "missing"
        return "to make" if need.files.partial is None else "in part"

    def _is_final(self, cell: Cell, figure: Figure, need: Need) -> bool:
        """Whether nothing more can be had of a figure with what is there."""
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
        recipe = self.recipe(stage.recipe)
        if stage.run not in self._files:
            self._files[stage.run] = training_files(recipe, self.data), hub_files(recipe)
        files, hub = self._files[stage.run]
        state = run_state(self.runs / stage.run)
        prepared = tuple(prepared_files(stage, recipe, self.data, self.runs))
        return StageNeed(stage, state, files, hub, prepared, training_cost(stage.recipe, stage.run))


def _programs(cells: Sequence[Cell]) -> list[str]:
    """What is not installed of what the metrics of figures need."""
    missing: dict[str, None] = {}
    for cell in cells:
        program = missing_programs(cell.metric)
        if program is not None:
            missing[program] = None
    return list(missing)
