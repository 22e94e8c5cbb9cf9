"""What must hold, by the numbers under which it is known to the campaign, and the result of one trial of it."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.bench import Bench
from benchmarks.faults.program import Ended

#: Number → what must hold.
KINDS = {
    1: "outputs: nothing that fiber did not make is replaced without --force, an input never, and a failure leaves all",
    2: "a full disk: one line, nothing half-written, and the same command works once there is room",
    3: "one run, one folder: a second run is refused, a failed start accepted, a user's file left as it is",
    4: "integrity: a flipped bit in a checkpoint is told, with the file's name",
    5: "damaged or foreign things in a run folder: one line that names the file",
    6: "names that are not UTF-8, byte-order marks, control characters: read for what they are, printed harmless",
    7: "ranks agree on data, recipe, checkpoint and folder before the first step",
    8: "a rank that dies is told within seconds; every signal saves; a stopped run goes on bit for bit",
    9: "an output folder that is removed in the middle is an error",
    10: "no code from a checkpoint is executed or offered",
    11: "every parser has bounds",
    12: "whatever else happens: one line, exit 1",
}
#: Parts of the campaign, in their order.
PARTS = ("inputs", "outputs", "bits", "folders", "ranks", "disks", "kills")


@dataclass(frozen=True)
class Trial:
    """One trial. kind: of `KINDS`; instance: what was done, in words; command: as it is typed; problem: what did not
    hold, None where all did."""

    part: str
    kind: int
    instance: str
    command: str
    problem: str | None
    seconds: float = 0.0

    def line(self) -> str:
        """For the screen."""
        outcome = f"FAILED: {self.problem}\n    {self.command}" if self.problem else "holds"
        return f"{self.part:8} {self.kind:2} {self.seconds:5.1f} s  {self.instance}: {outcome}"


class Verdict(NamedTuple):
    """What a trial showed. ended: the command that was judged; problem: what did not hold, None where all did."""

    ended: Ended
    problem: str | None


@dataclass(frozen=True)
class Case:
    """A trial that can be made. attempt: makes it, in an empty folder of the bench."""

    part: str
    kind: int
    instance: str
    attempt: Callable[[Bench, Path], Verdict]

    def trial(self, bench: Bench) -> Trial:
        """Make it; its folder stays only where something did not hold, for whoever looks into it."""
        began = time.monotonic()
        folder = bench.new_folder()
        ended, problem = self.attempt(bench, folder)
        shown = ended.command.replace(str(folder), ".").replace(str(bench.stock.folder), "STOCK")
        if problem:
            problem = problem.replace(str(folder), ".").replace(str(bench.stock.folder), "STOCK")
        else:
            shutil.rmtree(folder)
        return Trial(self.part, self.kind, self.instance, shown, problem, time.monotonic() - began)


def spread(cases: Sequence[Case], number: int) -> list[Case]:
    """So many of the cases, at even distances."""
    number = min(number, len(cases))
    return [cases[place * len(cases) // number] for place in range(number)]
