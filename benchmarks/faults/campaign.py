"""All trials, and what they come to."""

import json
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import fiber_cli
from benchmarks.faults import inputs
from benchmarks.faults.bench import Bench
from benchmarks.faults.kinds import KINDS, PARTS, Case, Trial

PACKAGES = ("torch", "deepspeed", "transformers", "safetensors", "pillow", "pyyaml")


def all_cases(bench: Bench, parts: Sequence[str], trials: int) -> Iterator[Case]:
    """The cases of these parts."""
    if "inputs" in parts:
        yield from inputs.cases()


def report(trials: Sequence[Trial], seed: int, number: int) -> str:
    """The figures as JSON: of each kind and part how many trials and failures, with what was done."""
    kinds: dict[str, Any] = {}
    for kind, about in KINDS.items():
        of_kind = [trial for trial in trials if trial.kind == kind]
        instances = sorted({trial.instance for trial in of_kind})
        kinds[str(kind)] = {"about": about, **_counts(of_kind), "instances": instances}
    parts = {part: _counts([trial for trial in trials if trial.part == part]) for part in PARTS}
    failures = [vars(trial) for trial in trials if trial.problem]
    content = {
        "command": f"python -m benchmarks.faults --seed {seed} --trials {number}",
        "version": fiber_cli.__version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        **_counts(trials),
        "parts": parts,
        "kinds": kinds,
        "failed": failures,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _counts(trials: Sequence[Trial]) -> dict[str, int]:
    return {"trials": len(trials), "failures": sum(trial.problem is not None for trial in trials)}
