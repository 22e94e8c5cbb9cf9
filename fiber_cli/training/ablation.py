"""What the runs of an ablation ended with, as a comparison: text, Markdown, JSON and a picture."""

import statistics
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from fiber_cli.characters import cell
from fiber_cli.checkpoints.run_files import METRICS, RESULTS, SUMMARY
from fiber_cli.config.grid import Grid, Variant
from fiber_cli.errors import UserError
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import read_regular
from fiber_cli.training.records import read_records

#: What the last steps of a run are of all.
LAST_STEPS = 0.2
#: What of the log of a step is about learning.
_OF_A_STEP = ("_loss", "_accuracy")
#: What stands for a figure that there is not.
NOTHING = "–"
#: Stands over variants without a group that come behind some with one.
OTHERS = "others"


class RunResult(NamedTuple):
    """What a finished run ended with: metrics of its last validation and of its evaluations, and means of what its last
    steps logged, by name; numbers of parameters by what they are of, and seconds a step."""

    metrics: Mapping[str, float]
    parameters: Mapping[str, int]
    step_seconds: float

    @property
    def fusion_parameters(self) -> int:
        return sum(count for name, count in self.parameters.items() if name.startswith("fusion"))


class VariantResults(NamedTuple):
    """A variant and what its runs ended with, by seed; those that are not finished are not there."""

    variant: Variant
    runs: Mapping[int, RunResult]

    def spread(self, metric: str) -> "Spread | None":
        """Of a metric over the seeds; None where no run has it."""
        values = list(self.values(metric).values())
        return Spread.of(values) if values else None

    def values(self, metric: str) -> dict[int, float]:
        """A metric by seed, of the runs that have it."""
        return {seed: run.metrics[metric] for seed, run in self.runs.items() if metric in run.metrics}

    def difference(self, metric: str, other: "VariantResults") -> float | None:
        """How much more of a metric this has than the other, a mean over the seeds that both have; None without one."""
        ours, theirs = self.values(metric), other.values(metric)
        differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        return statistics.fmean(differences) if differences else None


class Spread(NamedTuple):
    """Mean and (population) standard deviation over `seeds` runs."""

    mean: float
    std: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.fmean(values), statistics.pstdev(values), len(values))


def read_run(folder: Path, evaluations: Sequence[Path]) -> RunResult | None:
    """What the run in a folder ended with, `evaluations` being the folders of its results; None where it is not
    finished. Raises UserError for files of another form."""
    summary = _read(folder / SUMMARY)
    if summary is None:
        return None
    steps, seconds = summary.get("steps"), summary.get("seconds")
    if not isinstance(steps, int) or not isinstance(seconds, int | float):
        raise _foreign(folder / SUMMARY)
    metrics = last_steps(folder / METRICS, steps) | _numbers(folder / SUMMARY, summary, "metrics")
    for evaluation in evaluations:
        results = _read(evaluation / RESULTS)
        if results is None:
            return None
        metrics |= _numbers(evaluation / RESULTS, results, "metrics")
    parameters = _numbers(folder / SUMMARY, summary, "parameters")
    counts = {name: int(count) for name, count in parameters.items()}
    return RunResult(metrics, counts, seconds / max(1, steps))


def last_steps(file: Path, steps: int) -> dict[str, float]:
    """Losses and accuracies of a metrics.jsonl by name, each a mean over what the last fifth of the steps logged.

    One that was no number at a step is left out. Raises UserError for a file of another form.
    """
    values: dict[str, list[Any]] = {}
    for record in read_records(file):
        if record["step"] <= steps - max(1, round(steps * LAST_STEPS)):
            continue
        for name, value in record.items():
            if name.endswith(_OF_A_STEP) and "/" not in name:
                values.setdefault(name, []).append(value)
    return {name: statistics.fmean(each) for name, each in values.items() if None not in each}


def _read(file: Path) -> dict[str, Any] | None:
    """The content of a file that a command writes last; None where it is not there, or was cut by a kill."""
    try:
        content = parse_json(read_regular(file))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; delete it, and it is made again") from error
    except ValueError:
        return None
    if not isinstance(content, dict):
        raise _foreign(file)
    return content


def _numbers(file: Path, content: dict[str, Any], name: str) -> dict[str, float]:
    numbers = content.get(name)
    if not isinstance(numbers, dict) or not all(isinstance(value, int | float) for value in numbers.values()):
        raise _foreign(file)
    return numbers


def _foreign(file: Path) -> UserError:
    return UserError(f"{file} is not what fiber writes there; move it away, or give another --output")


def comparison(grid: Grid, results: Sequence[VariantResults]) -> dict[str, Any]:
    """Every figure, and the means over the seeds: what comparison.json holds."""
    rows = []
    for each in results:
        means = {}
        for metric in grid.metrics:
            spread = each.spread(metric)
            means[metric] = None if spread is None else spread._asdict()
        rows.append(
            {
                "name": each.variant.name,
                "group": each.variant.group,
                "settings": list(each.variant.settings),
                "paper": each.variant.paper,
                "mean": means,
                "runs": {str(seed): run._asdict() for seed, run in each.runs.items()},
            }
        )
    return {"metrics": list(grid.metrics), "seeds": list(grid.seeds), "variants": rows}


def table(grid: Grid, results: Sequence[VariantResults]) -> list[list[str]]:
    """Rows of cells, the heading first: of each metric the mean, with several seeds its deviation, and the difference
    from the first variant with the same seeds; parameters of fusion; seconds a step; what the paper says, where it says
    something."""
    says_something = any(each.variant.paper for each in results)
    heading = ["", *grid.metrics, "fusion parameters", "s a step"]
    if says_something:
        heading.append("the paper")
    rows = [heading]
    group = ""
    for each in results:
        if each.variant.group != group:
            group = each.variant.group
            rows.append([group or OTHERS])
        cells = [each.variant.name]
        for metric in grid.metrics:
            difference = None if each is results[0] else each.difference(metric, results[0])
            cells.append(_metric_cell(each.spread(metric), difference, _digits(metric)))
        cells += _cost_cells(each)
        if says_something:
            cells.append(each.variant.paper)
        rows.append(cells)
    return rows


def _digits(metric: str) -> int:
    """Behind the point: percentages, whose names have a slash, change in the tenths, losses in the thousandths."""
    return 1 if "/" in metric else 3


def _metric_cell(spread: Spread | None, difference: float | None, digits: int) -> str:
    if spread is None:
        return NOTHING
    text = f"{spread.mean:.{digits}f}"
    if spread.seeds > 1:
        text += f" ± {spread.std:.{digits}f}"
    return text if difference is None else f"{text} ({difference:+.{digits}f})"


def _cost_cells(each: VariantResults) -> list[str]:
    """Parameters of fusion, the same with every seed, and the median of the seconds a step."""
    if not each.runs:
        return [NOTHING, NOTHING]
    runs = list(each.runs.values())
    seconds = statistics.median(run.step_seconds for run in runs)
    return [f"{runs[0].fusion_parameters:,}", f"{seconds:.2f}"]


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """The table for a terminal; a row of one cell is a heading."""
    widths = [max(len(cell(row[i])) for row in rows if len(row) > max(1, i)) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{cell(text):<{width}}" for text, width in zip(row, widths, strict=False)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """The table as Markdown; a row of one cell is a heading in bold."""
    lines = []
    for number, row in enumerate(rows):
        cells = [cell(text).replace("|", "\\|") for text in row]
        if len(row) == 1:
            cells = [f"**{cells[0]}**", *[""] * (len(rows[0]) - 1)]
        lines.append(f"| {' | '.join(cells)} |")
        if number == 0:
            lines.append("|---" * len(row) + "|")
    return "\n".join(lines) + "\n"


def picture(grid: Grid, results: Sequence[VariantResults]) -> bytes:
    """A picture (PNG) with a panel for each metric: a bar for each variant, with its deviation over the seeds, and a
    line at the first one's."""
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(each.variant.group for each in results))
    height = 1.4 + 0.34 * len(results)
    figure = Figure(figsize=(3 + 3.2 * len(grid.metrics), height), layout="constrained")
    panels = figure.subplots(1, len(grid.metrics), squeeze=False, sharey=True)[0]
    for axes, metric in zip(panels, grid.metrics, strict=True):
        for number, each in enumerate(results):
            spread = each.spread(metric)
            if spread is not None:
                colour = f"C{groups.index(each.variant.group) % 10}"
                deviation = spread.std if spread.seeds > 1 else None
                axes.barh(number, spread.mean, xerr=deviation, color=colour)
        first = results[0].spread(metric)
        if first is not None:
            axes.axvline(first.mean, color="black", linestyle="--", linewidth=0.8)
        axes.set(title=metric)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(results)), [each.variant.name for each in results])
    panels[0].set_ylim(len(results) - 0.5, -0.5)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=120, format="png")
    return drawn.getvalue()
