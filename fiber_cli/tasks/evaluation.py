"""What a task is measured on; a task's `evaluation.evaluation` gives it."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from fiber_cli.data.source import Source
from fiber_cli.distributed.collectives import from_main
from fiber_cli.errors import UserError
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.prediction import PredictOptions, predict_on_main

if TYPE_CHECKING:
    from fiber_cli.tasks.base import Task
    from fiber_cli.tasks.evalset import EvalSet


@dataclass(frozen=True)
class Result:
    """metrics: flat name → number, percentages as 0 to 100. samples: how many items there are; counts: of what they
    consist, where that is told. bad: (id, reason) of the items left out; truncated: how many texts were cut. files:
    name → content of what the task's community submits or looks at, text as it is, everything else as JSON; of several
    ranks the first alone has them. notes: lines for the reader."""

    metrics: dict[str, float]
    samples: int
    counts: Mapping[str, int] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    truncated: int = 0
    files: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Checked(NamedTuple):
    """remarks: lines about the truth for the reader. metrics: the names of those that the truth has, none where it has
    nothing to score by; None where that shows with predictions alone. files: the names of those of the result, so that
    it is known beforehand whether they can be written."""

    remarks: list[str]
    metrics: Collection[str] | None = None
    files: Collection[str] = ()


class Evaluation(ABC):
    """Data that a task is measured on. mode: what results.json says of how."""

    mode: str

    @abstractmethod
    def check(self) -> Checked:
        """Reads some of the data and scores no predictions, so that what is wrong with them is known before anything is
        computed. Raises UserError where nothing can be read."""

    @abstractmethod
    def measure(self, task: "Task", options: PredictOptions) -> Result:
        """The task's metrics, the same on all ranks, but for the files. Raises UserError where nothing can be read."""


class MakeEvaluation(Protocol):
    """Raises UserError for sources that cannot be evaluated and for options that are not for this task."""

    def __call__(
        self, sources: Sequence[Source], context: TaskContext[Any], options: EvaluationOptions
    ) -> Evaluation: ...


def check_items(evalset: "EvalSet") -> Checked:
    """`Evaluation.check` of one set."""
    evalset.check()
    measured: Collection[str] = ()
    # A mean over no predictions says nothing about the truth.
    with suppress(ZeroDivisionError):
        measured = evalset.score({}).metrics
    if evalset.SCORED_WITHOUT_PREDICTIONS:
        return Checked(evalset.remarks(), measured, evalset.FILES)
    return Checked(evalset.remarks(), None if evalset.has_truth() else (), evalset.FILES)


def measure_items(task: "Task", evalset: "EvalSet", options: PredictOptions) -> Result:
    """The set's score of the task's predictions, see `scored_on_main`."""
    predictions = predict_on_main(task, evalset, options, what="evaluation")
    samples = from_main(lambda: len(predictions.rows))
    if not samples:
        raise UserError("nothing to evaluate: no item could be read; check the data set's paths")

    def score() -> Result:
        score = evalset.score(predictions.rows)
        return Result(
            metrics=score.metrics,
            samples=samples,
            bad=predictions.bad,
            truncated=predictions.truncated,
            files=score.files,
            notes=[*evalset.remarks(), *score.notes],
        )

    return scored_on_main(score)


def scored_on_main(score: Callable[[], Result]) -> Result:
    """What `score` gives on the first rank, which alone has the predictions, and may start Java; on all ranks, but for
    the files, which the first writes."""
    files: dict[str, Any] = {}

    def without_files() -> Result:
        result = score()
        files.update(result.files)
        return replace(result, files={})

    return replace(from_main(without_files), files=files)


class ItemEvaluation(Evaluation):
    """One set of numbered items, for tasks that predict something of each."""

    #: Whether a picture can be exchanged for another.
    can_be_blind: ClassVar[bool] = True

    def __init__(self, mode: str, evalset: "EvalSet", options: EvaluationOptions):
        refuse_retrieval_options(options, mode)
        refuse_detection_options(options, mode)
        self.mode, self.evalset, self.blind = mode, evalset, options.blind

    def check(self) -> Checked:
        return check_items(self.evalset)

    def measure(self, task: "Task", options: PredictOptions) -> Result:
        result = measure_items(task, self.evalset, options)
        if self.blind and len(self.evalset) == 1:
            note = "--blind measures nothing: there is one item, and no other whose image could stand for its own"
            return replace(result, notes=[*result.notes, note])
        if self.blind:
            from fiber_cli.tasks.evalset import Blind

            exchanged = measure_items(task, Blind(self.evalset), options).metrics
            for name, value in exchanged.items():
                result.metrics[f"blind/{name}"] = value
        return result


def refuse_retrieval_options(options: EvaluationOptions, task: str) -> None:
    """UserError for options of retrieval."""
    if options.mode is not None and options.mode != task:
        raise UserError(f"--mode {options.mode} is for retrieval; {options.checkpoint} is a checkpoint of {task}")
    if options.scorer is not None:
        raise UserError("--itm-checkpoint scores pairs: it is for retrieval with fusion, by a retrieval checkpoint")


def refuse_detection_options(options: EvaluationOptions, task: str) -> None:
    """UserError for options of detection."""
    if options.ap_library is not None:
        raise UserError(f"--ap-library is for detection; {options.checkpoint} is a checkpoint of {task}")
    if options.chunk != "auto":
        raise UserError(f"--chunk is for detection; {options.checkpoint} is a checkpoint of {task}")


def together(names: Sequence[str], results: Sequence[Result]) -> Result:
    """The results of several sets, whose names are distinct, as one. A metric that several have stands as
    `<metric>/<set>`, files in a folder of the set."""
    if len(results) == 1:
        return results[0]
    occurrences = Counter(metric for result in results for metric in result.metrics)
    metrics: dict[str, float] = {}
    files: dict[str, Any] = {}
    bad: list[tuple[str, str]] = []
    notes: list[str] = []
    for name, result in zip(names, results, strict=True):
        for metric, value in result.metrics.items():
            is_shared = occurrences[metric] > 1
            metrics[f"{metric}/{name}" if is_shared else metric] = value
        for file, content in result.files.items():
            files[f"{name}/{file}"] = content
        bad.extend(result.bad)
        notes.extend(f"{name}: {note}" for note in result.notes)
    return Result(
        metrics,
        samples=sum(result.samples for result in results),
        bad=bad,
        truncated=sum(result.truncated for result in results),
        files=files,
        notes=notes,
    )


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names, with their number behind those that several sets have."""
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name}-{number}" for number, name in enumerate(names, 1)]
