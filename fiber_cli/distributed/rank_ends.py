"""How ranks ended, in words and as one exit code."""

import signal
from collections.abc import Collection, Sequence
from typing import NamedTuple

from fiber_cli.distributed.rank_report import Report
from fiber_cli.errors import EXIT_FAILED, EXIT_OK, EXIT_STOPPED
from fiber_cli.stop_signals import SIGNAL_BASE

#: Signal → what it most likely means for a rank.
LIKELY = {
    "SIGKILL": "likely out of memory, so that the kernel ended it; fewer data.workers or a smaller batch need less",
    "SIGSEGV": "likely a fault in a compiled package or a driver",
    "SIGBUS": "likely shared memory is full (/dev/shm; of a container --shm-size), or a file was cut while it was read",
    "SIGABRT": "likely a collective timed out or a compiled package gave up; see what it printed",
    "SIGILL": "likely a package is built for another processor",
    "SIGFPE": "likely a fault in a compiled package",
    "SIGXCPU": "likely its limit of processor time",
    "SIGXFSZ": "likely its limit of file size",
    "SIGPIPE": "likely the reader of its output ended",
}
#: For the others.
FROM_OUTSIDE = "from outside: likely the scheduler, or another user"


class End(NamedTuple):
    """A rank that ended by itself. code: as subprocess has it, negative for a signal. report: what it said of it."""

    rank: int
    code: int
    report: Report | None = None

    @property
    def signal_name(self) -> str | None:
        """Of the signal that ended it."""
        number = -self.code if self.code < 0 else self.code - SIGNAL_BASE
        if number not in {int(each) for each in signal.Signals}:
            return None
        return signal.Signals(number).name

    @property
    def follows(self) -> bool:
        """Whether it ended because another rank had."""
        return self.report is not None and self.report.follows

    def in_words(self) -> str:
        """Which rank ended, how, and why as far as that can be known."""
        if self.report is not None:
            return f"rank {self.rank}: {self.report.message}"
        name = self.signal_name
        if name is None:
            return f"rank {self.rank} failed with exit code {self.code}; what it printed is above"
        return f"rank {self.rank} was ended by {name}, {LIKELY.get(name, FROM_OUTSIDE)}"


class Conclusion(NamedTuple):
    """The exit code of a run, and the last lines that it prints."""

    code: int
    lines: list[str]


def conclude(ends: Sequence[End], asked: Collection[int], count: int) -> Conclusion:
    """What the ends of a run's ranks, in their order, come to. asked: the signals that were passed on to the ranks;
    count: of all ranks, of which the launcher may have ended some."""
    asked_for = {signal.Signals(number).name for number in asked}
    causes = []
    for end in ends:
        is_failure = end.code not in (EXIT_OK, EXIT_STOPPED)
        if is_failure and not end.follows and end.signal_name not in asked_for:
            causes.append(end)
    if causes:
        return _failure(causes, count)
    stopped = [end for end in ends if end.code == EXIT_STOPPED]
    if stopped:
        return _stopped(stopped, ends)
    by_signal = [end for end in ends if end.signal_name in asked_for]
    if by_signal:
        code = by_signal[0].code
        return Conclusion(code if code > 0 else SIGNAL_BASE - code, [])
    following = [end for end in ends if end.follows]
    if following:
        return _failure(following, count)
    return Conclusion(EXIT_OK, [])


def _failure(causes: list[End], count: int) -> Conclusion:
    """A line for each cause, that of most weight at last; one line where all ranks say the same."""
    causes = sorted(causes, key=_weight)
    code = max(causes[-1].code, EXIT_FAILED)
    messages = {end.report.message if end.report else None for end in causes}
    if len(causes) == count and len(messages) == 1 and causes[-1].report is not None:
        return Conclusion(code, [causes[-1].report.message])
    return Conclusion(code, [end.in_words() for end in causes])


def _weight(end: End) -> int:
    """How well the end of a rank explains the end of a run."""
    if end.report is not None:
        return 2
    if end.signal_name == "SIGABRT":
        return 0
    return 1 if end.signal_name is None else 3


def _stopped(stopped: list[End], ends: Sequence[End]) -> Conclusion:
    """Ranks that stopped as they were asked to; the others may have lost them."""
    if len(stopped) == len(ends):
        return Conclusion(EXIT_STOPPED, [])
    names = ", ".join(str(end.rank) for end in stopped)
    return Conclusion(EXIT_STOPPED, [f"rank {names} was stopped by a signal, and the others with it"])
