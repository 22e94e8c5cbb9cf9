"""Files of the right kind with hostile content, as trials."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.bench import Bench, judged, tree
from benchmarks.faults.kinds import Case, Verdict
from benchmarks.faults.stock import Stock

#: Writes the content into a folder and gives the command line that reads it.
Make = Callable[[Stock, Path], list[object]]


class Hostile(NamedTuple):
    """kind: of `KINDS`; what: is wrong, in words; named: what the error must name; either: it may also be taken, as
    long as nothing breaks."""

    kind: int
    what: str
    make: Make
    named: str
    either: bool = False

    def case(self) -> Case:
        """As a trial."""
        return Case("inputs", self.kind, self.what, self._attempt)

    def _attempt(self, bench: Bench, folder: Path) -> Verdict:
        words = self.make(bench.stock, folder)
        before = tree(folder)
        # Whoever asks whether code may be run is told so.
        ended = bench.program.run(*words, cwd=folder, stdin="y\n" * 5)
        return Verdict(ended, judged(ended, folder, before, self.named, is_either=self.either))
