"""Our figures, from what finished runs and evaluations have written."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fiber_cli.checkpoints.config import CONFIG_FILE
from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.run_files import CHECKPOINTS, RESULTS, SUMMARY, hardware_of
from fiber_cli.errors import UserError
from fiber_cli.evaluation.few_shot import tuning_name
from fiber_cli.evaluation.odinw13 import SEEDS, SETS
from fiber_cli.evaluation.odinw_table import OdinwAp, mean_over_sets
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import read_regular
from fiber_cli.tables.commands import HeaderCommand, evaluation_command, stage_of, tuning_command
from fiber_cli.tables.paper import GPU_HOURS, SECONDS_A_STEP
from fiber_cli.tables.rows import Cell, Evaluated, Source, Trained, Tuned
from fiber_cli.training.run_folder import has_checkpoint

#: What a test server answered, beside the predictions that were sent: metric → number.
SERVER = "server.json"
#: Files that are sent to a server, in the folder of an evaluation.
SUBMISSIONS = ("predictions.json", "captions.json")
#: Ends the name of a data set of which some parts only were there.
_PARTIAL = re.compile(r"-([0-9]+-of-[0-9]+)$")
#: Ends the folder of an evaluation of the first so many samples.
_LIMITED = re.compile(r"-first[0-9]+$")
#: Folders that hold no results.
_SKIPPED = {CHECKPOINTS, "tensorboard", "wandb"}
_SECONDS_AN_HOUR = 3600


class Figure(NamedTuple):
    """A figure of ours. value: None where there is none. partial: of what part of the data it is, where not of all;
    note: what else the reader must know; file: where it stands, or, of predictions that are to be sent, these."""

    value: float | None = None
    partial: str | None = None
    note: str | None = None
    file: Path | None = None


class Result(NamedTuple):
    """A results.json."""

    file: Path
    content: dict[str, Any]
    changed: float

    @property
    def checkpoint(self) -> Path:
        """What was evaluated, of retrieval the dual encoder."""
        return Path(self.content["checkpoint"])

    @property
    def itm_checkpoint(self) -> Path | None:
        """What scored the pairs, where it is another."""
        name = self.content.get("itm_checkpoint")
        return name and Path(name)

    @property
    def partial(self) -> str | None:
        """Such as "1 of 13 sets"; None of a whole data set."""
        found = _PARTIAL.search(self.content["dataset"])
        if found is None:
            return None
        return f"{found[1].replace('-', ' ')} sets"


def read_result(file: Path) -> Result | None:
    """A results.json of an evaluation of all samples; None for any other."""
    content = _read_mapping(file)
    if content is None or "limit" in content or _LIMITED.search(file.parent.name):
        return None
    texts = ("dataset", "split", "mode", "checkpoint")
    if not all(isinstance(content.get(name), str) for name in texts) or not isinstance(content.get("metrics"), dict):
        return None
    return Result(file, content, file.stat().st_mtime)


def _read_mapping(file: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none, or none that can be read, as a kill leaves it."""
    try:
        content = parse_json(read_regular(file))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def result_files(folder: Path) -> Iterator[Path]:
    """Every results.json below a folder."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(set(folders) - _SKIPPED)
        if RESULTS in names:
            yield Path(parent, RESULTS)


class Results:
    """What stands below the folder of the runs and other folders of results."""

    def __init__(self, runs: Path, others: Sequence[Path] = ()):
        self.runs = runs
        self.folders = (runs, *others)
        self.results: list[Result] = []
        self.read()

    def read(self) -> None:
        """Look again at what is there."""
        found: dict[Path, Result] = {}
        for folder in self.folders:
            for file in result_files(folder):
                result = read_result(file)
                if result is not None:
                    found[Path(os.path.realpath(file))] = result
        self.results = list(found.values())

    def find(self, dataset: str, split: str, mode: str | None, fits: Callable[[Result], bool]) -> Result | None:
        """The newest that fits, whole ones before parts; mode: None for any."""
        fitting = []
        for result in self.results:
            content = result.content
            is_of_data = _PARTIAL.sub("", content["dataset"]) == dataset and content["split"] == split
            if is_of_data and mode in (None, content["mode"]) and fits(result):
                fitting.append(result)
        return max(fitting, key=_newest_whole, default=None)

    def result_of(self, source: Evaluated) -> Result | None:
        """The evaluation that a figure is of, by the checkpoints that its runs stand for now."""
        command = evaluation_command(source)
        if command is None:
            return None
        return self.find(source.dataset, source.split, source.mode, lambda result: self._is_of(result, command))

    def _is_of(self, result: Result, command: HeaderCommand) -> bool:
        is_as_published = result.content.get("prompts") == "published"
        if is_as_published != ("--published-prompts" in command.arguments):
            return False
        measured = {"--checkpoint": result.checkpoint, "--itm-checkpoint": result.itm_checkpoint}
        for option, checkpoint in measured.items():
            run = command.run(option)
            if (run is None) != (checkpoint is None):
                return False
            if run is not None and checkpoint is not None and not stands_for(self.runs / run, checkpoint):
                return False
        return True

    def precision_of(self, figure: Figure) -> str | None:
        """What an evaluation was computed in; None of a figure that comes of none, or of one that does not tell."""
        if figure.file is None:
            return None
        for result in self.results:
            if result.file.parent == figure.file.parent:
                return result.content.get("precision")
        return None

    def figure(self, cell: Cell) -> Figure:
        """Ours, from the first of its sources that has it."""
        figures = [self._figure_of(cell, source) for source in cell.sources]
        for figure in figures:
            if figure.value is not None:
                return figure
        for figure in figures:
            if figure != Figure():
                return figure
        return Figure()

    def _figure_of(self, cell: Cell, source: Source) -> Figure:
        if isinstance(source, Trained):
            return self._of_training(source, cell.metric)
        if isinstance(source, Tuned):
            return self._of_tunings(source)
        result = self.result_of(source)
        if result is None:
            return Figure()
        if cell.server is not None:
            return sent_figure(result.file.parent, cell)
        return measured_figure(result, cell.metric)

    def _of_training(self, source: Trained, metric: str) -> Figure:
        stage = stage_of(source)
        if stage is None:
            return Figure()
        return training_figure(self.runs / stage.run / SUMMARY, metric)

    def _of_tunings(self, source: Tuned) -> Figure:
        command = tuning_command(source)
        if command is None:
            return Figure()
        return tuned_figure(self.runs / command.output, source.shots)


def _newest_whole(result: Result) -> tuple[bool, float]:
    return result.partial is None, result.changed


def stands_for(run: Path, checkpoint: Path) -> bool:
    """Whether a checkpoint is the one that a run stands for; where the run's own are gone, any of a run of its name."""
    of_run = checkpoint.parent.parent.name if checkpoint.parent.name == CHECKPOINTS else checkpoint.name
    if of_run != run.name:
        return False
    try:
        current = resolve(run)
    except UserError:
        return True
    return checkpoint.parent.name != CHECKPOINTS or checkpoint.name == current.name


def measured_figure(result: Result, metric: str) -> Figure:
    """A metric of an evaluation."""
    value = result.content["metrics"].get(metric)
    if not isinstance(value, int | float):
        return Figure(None, result.partial, f"{result.file} has no {metric}", result.file)
    return Figure(float(value), result.partial, None, result.file)


def sent_figure(folder: Path, cell: Cell) -> Figure:
    """What a test server answered, or which file to send it."""
    predictions = submission(folder)
    answered = _read_mapping(folder / SERVER) or {}
    value = answered.get(cell.metric)
    if isinstance(value, int | float):
        return Figure(float(value), None, f"as the test server answered, {folder / SERVER}", folder / SERVER)
    note = (
        f"send {predictions} to {cell.server}, and write what it answers into {folder / SERVER} "
        f'as {{"{cell.metric}": NUMBER}}'
    )
    return Figure(None, None, note, predictions)


def submission(folder: Path) -> Path:
    """The predictions of an evaluation, in the form that the task's community submits."""
    for name in SUBMISSIONS:
        if (folder / name).is_file():
            return folder / name
    return folder / SUBMISSIONS[0]


def training_figure(file: Path, metric: str) -> Figure:
    """What a summary.json tells of the time: seconds of a step, or hours of all its GPUs together."""
    summary = _read_mapping(file)
    if summary is None:
        return Figure()
    try:
        seconds, steps, ranks = float(summary["seconds"]), int(summary["steps"]), int(summary["ranks"])
        values = {SECONDS_A_STEP: seconds / steps, GPU_HOURS: seconds * ranks / _SECONDS_AN_HOUR}
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return Figure(None, None, f"{file} does not tell seconds, steps and ranks", file)
    return Figure(values[metric], None, f"on {ranks} x {hardware_of(summary)}, {file}", file)


def tuned_figure(folder: Path, shots: int) -> Figure:
    """Mean AP over the sets of ODinW that `fiber odinw` has fine-tuned with so many shots, and over the draws."""
    results = list(tuned_results(folder, shots))
    if not results:
        return Figure()
    sets = len({result.set_name for result in results})
    seeds = len({result.seed for result in results})
    partial = []
    if sets < len(SETS):
        partial.append(f"{sets} of {len(SETS)} sets")
    if seeds < len(_seeds(shots)):
        partial.append(f"{seeds} of {len(SEEDS)} draws")
    if not partial and len(results) < sets * seeds:
        partial.append(f"{len(results)} of {sets * seeds} fine-tunings")
    return Figure(mean_over_sets(results).ap, ", ".join(partial) or None, None, folder)


def _seeds(shots: int) -> tuple[int | None, ...]:
    """Of the draws; all data are not drawn."""
    return SEEDS if shots else (None,)


def tuned_results(folder: Path, shots: int) -> Iterator[OdinwAp]:
    """The APs of the fine-tunings with so many shots that are finished."""
    for each in SETS:
        for seed in _seeds(shots):
            content = _read_mapping(tuning_folder(folder, each.name, shots, seed) / "test" / RESULTS) or {}
            metrics = content.get("metrics")
            ap = metrics.get("detection/ap") if isinstance(metrics, dict) else None
            if isinstance(ap, int | float):
                yield OdinwAp(each.name, shots, seed, float(ap))


def tuning_folder(folder: Path, set_name: str, shots: int, seed: int | None) -> Path:
    """Where `fiber odinw` has a fine-tuning."""
    return folder / tuning_name(set_name, shots, seed)


def run_state(folder: Path) -> str:
    """How far a run is: "finished", also of a converted checkpoint, "begun" or "missing"."""
    if (folder / SUMMARY).is_file() or (folder / CONFIG_FILE).is_file():
        return "finished"
    return "begun" if has_checkpoint(folder) else "missing"
