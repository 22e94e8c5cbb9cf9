"""What the files of a run say of one of its checkpoints, for whoever reads its card: how it was trained, on what, and
what was measured.

Paths are reduced to their last parts: where a user's files lie is nobody else's.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fiber_cli.checkpoints.hub_names import HubName, snapshot
from fiber_cli.checkpoints.run_files import EVALUATIONS, INIT_FROM, METRICS, RECIPE, RESULTS, SUMMARY, run_of
from fiber_cli.checkpoints.shipped import is_shipped, label
from fiber_cli.parsing import parse_json, parse_yaml
from fiber_cli.regular_files import read_regular
from fiber_cli.text_files import lines_of, read_text

#: What a record of training has and one of validation has not.
_OF_TRAINING = "images_per_second"
_ABSOLUTE = re.compile(r"(~|/|[A-Za-z]:[\\/]).*")
_STEP = re.compile(r"step-0*(\d+)")


class Measured(NamedTuple):
    """Figures of one data set, percentages as 0 to 100. dataset, split: as `fiber eval` has them."""

    dataset: str
    split: str
    metrics: dict[str, float]


class RunFacts(NamedTuple):
    """recipe: the resolved one, its paths reduced, {} where it is not known; summary: of summary.json; step: of the
    checkpoint; start: what its weights began with, in words or on the hub, None where it was nothing or is not known;
    measured: validation first, then evaluations."""

    recipe: dict[str, Any]
    summary: dict[str, Any]
    step: int | None
    start: HubName | str | None
    measured: list[Measured]


def run_facts(checkpoint: Path) -> RunFacts:
    """Of a checkpoint directory, which need not be of a run; a file that is missing or damaged tells nothing."""
    step = None
    match = _STEP.fullmatch(checkpoint.name)
    if match is not None:
        step = int(match[1])
    run = run_of(checkpoint)
    if run is None:
        return RunFacts({}, {}, step, None, [])
    measured = [*_validation(run / METRICS, step), *_evaluations(run / EVALUATIONS, checkpoint)]
    return RunFacts(_recipe(run / RECIPE), _json(run / SUMMARY), step, _start(run / INIT_FROM), measured)


def reduced(value: Any) -> Any:
    """A value of a recipe, every path from the root of a file system reduced to its last part."""
    if isinstance(value, Mapping):
        return {name: reduced(each) for name, each in value.items()}
    if isinstance(value, list):
        return [reduced(each) for each in value]
    if isinstance(value, str) and _ABSOLUTE.fullmatch(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value


def _recipe(file: Path) -> dict[str, Any]:
    try:
        recipe = parse_yaml(read_text(file))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    if not isinstance(recipe, dict) or not isinstance(recipe.get("data"), dict):
        return {}
    paths_reduced: dict[str, Any] = reduced(recipe)
    return paths_reduced


def _json(file: Path) -> dict[str, Any]:
    """The object in a file; {} where it cannot be read."""
    try:
        content = parse_json(read_regular(file))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _start(note: Path) -> HubName | str | None:
    """The checkpoint in the note of a run's start: one of the hub and one that ships with fiber by its name, others by
    the end of their path."""
    try:
        path = Path(read_text(note).strip())
    except (OSError, ValueError):
        return None
    of_hub = snapshot(path)
    if of_hub is not None or not path.name:
        return of_hub
    if is_shipped(path):
        return f"{label(path)}, shipped with fiber"
    run = run_of(path)
    return path.name if run is None else f"{run.name}, {path.name}"


def _validation(file: Path, step: int | None) -> list[Measured]:
    """The last validation at a step."""
    last: dict[str, float] = {}
    try:
        lines = lines_of(read_text(file))
    except (OSError, ValueError):
        return []
    for line in lines:
        try:
            record = parse_json(line)
        except ValueError:
            continue  # cut by a kill
        if isinstance(record, dict) and record.pop("step", None) == step and _OF_TRAINING not in record:
            last = _numbers(record)
    if not last:
        return []
    return [Measured("the run's validation data", "", last)]


def _evaluations(folder: Path, checkpoint: Path) -> list[Measured]:
    """The results of a run's evaluations that are of the checkpoint."""
    found = []
    for file in sorted(folder.glob(f"*/{RESULTS}")):
        results = _json(file)
        metrics = results.get("metrics")
        is_of_it = Path(str(results.get("checkpoint"))).name == checkpoint.name
        is_whole = "limit" not in results and "itm_checkpoint" not in results
        if isinstance(metrics, dict) and is_of_it and is_whole:
            dataset, split = str(reduced(results.get("dataset", ""))), str(results.get("split") or "")
            found.append(Measured(dataset, split, _numbers(metrics)))
    return found


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of the values that are numbers."""
    numbers = {}
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            numbers[name] = value
    return numbers
