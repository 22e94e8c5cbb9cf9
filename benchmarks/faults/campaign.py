"""All trials, and what they come to."""

import json
import platform
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fiber_cli
from benchmarks.faults import bits, folders, inputs, kills, outputs, ranks
from benchmarks.faults.bench import Bench, bench
from benchmarks.faults.disks import SHARES, WRITINGS, Disks
from benchmarks.faults.full_disk import NoDisk, full_disk
from benchmarks.faults.kinds import KINDS, PARTS, Case, Trial

PACKAGES = ("torch", "deepspeed", "transformers", "safetensors", "pillow", "pyyaml")


class Campaign:
    """trials: all that were made; full_disk: by what means disks were full, or why none was."""

    def __init__(self, seed: int, number: int):
        self.seed = seed
        self.number = number
        self.trials: list[Trial] = []
        self.parts: Sequence[str] = PARTS
        self.full_disk = "not tried"

    def run(self, folder: Path, parts: Sequence[str], pattern: str) -> Iterator[Trial]:
        """Make the trials of these parts whose words hold the pattern, one after another."""
        self.parts = parts
        with bench(folder / "bench", self.seed) as made:
            for case in self.cases(made, parts):
                if re.search(pattern, case.instance):
                    yield self._kept(case.trial(made))
        if "disks" not in parts:
            return
        try:
            with full_disk(folder / "full") as disk:
                self.full_disk = disk.means
                disks = Disks(disk)
                for writing in WRITINGS:
                    if re.search(pattern, writing.what):
                        for share in SHARES:
                            yield self._kept(disks.trial(writing, share))
        except NoDisk as error:
            self.full_disk = f"none: {error}"

    def cases(self, bench: Bench, parts: Sequence[str]) -> Iterator[Case]:
        """The cases of all parts but full disks, which have a bench of their own."""
        if "inputs" in parts:
            yield from inputs.cases()
        if "outputs" in parts:
            yield from outputs.cases()
        if "bits" in parts:
            yield from bits.cases(bench, self.number)
        if "folders" in parts:
            yield from folders.cases()
        if "ranks" in parts:
            yield from ranks.cases()
        if "kills" in parts:
            yield from kills.cases(self.number)

    def _kept(self, trial: Trial) -> Trial:
        self.trials.append(trial)
        return trial

    def report(self) -> str:
        """The figures as JSON: of each kind and part how many trials and failures, with what was done."""
        kinds: dict[str, Any] = {}
        for kind, about in KINDS.items():
            of_kind = [trial for trial in self.trials if trial.kind == kind]
            instances = sorted({trial.instance for trial in of_kind})
            kinds[str(kind)] = {"about": about, **_counts(of_kind), "instances": instances}
        parts = {part: _counts([trial for trial in self.trials if trial.part == part]) for part in self.parts}
        only = "" if set(self.parts) == set(PARTS) else f" --only {','.join(self.parts)}"
        content = {
            "command": f"python -m benchmarks.faults --seed {self.seed} --trials {self.number}{only}",
            "version": fiber_cli.__version__,
            "python": platform.python_version(),
            "packages": {name: version(name) for name in PACKAGES},
            "full_disk": self.full_disk,
            **_counts(self.trials),
            "parts": parts,
            "kinds": kinds,
            "failed": [vars(trial) for trial in self.trials if trial.problem],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _counts(trials: Sequence[Trial]) -> dict[str, int]:
    return {"trials": len(trials), "failures": sum(trial.problem is not None for trial in trials)}
