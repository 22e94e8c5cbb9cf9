"""Signals that ask the program to stop, and what they do while no run takes them over.

Loaded before everything else, so that a signal during the imports is answered too: it imports next to nothing.
"""

import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from fiber_cli.errors import EXIT_STOPPED

#: Those that ask a run to stop and save; Windows lacks some.
STOP_SIGNALS = tuple(number for number in signal.Signals if number.name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"))
#: Added to a signal's number by the exit codes of commands that a signal ends, as shells have it.
SIGNAL_BASE = 128
#: Commands that have nothing to save before training begins, and that the same command line continues or begins anew.
_TRAINING = ("pretrain", "finetune", "odinw", "few-shot", "ablate")


def signals_to_handle() -> list[signal.Signals]:
    """`STOP_SIGNALS` without SIGHUP where it is ignored: nohup did that."""
    return [number for number in STOP_SIGNALS if number.name != "SIGHUP" or not _is_ignored(number)]


@contextmanager
def held_back() -> Iterator[None]:
    """Signals wait until the end of the block, and in processes that are started in it, which inherit that, until they
    can answer them (`Ending.install`, `release`)."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release() -> None:
    """Signals that were held back where this process was started are answered from here on."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def die_with_parent() -> None:
    """Have the kernel end this process where its parent is killed, which then cannot (PR_SET_PDEATHSIG of Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _is_ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) == signal.SIG_IGN


class Ending:
    """The end of this process by a signal, from its first moment to its last. arguments: of the command line."""

    def __init__(self, arguments: list[str]):
        self.is_training = bool(arguments) and arguments[0] in _TRAINING
        self.process = os.getpid()
        #: Of the command, once it is done.
        self.exit_code: int | None = None

    def install(self) -> None:
        """Answer the signals, those too that a launcher has held back until now. One that is ignored stays so."""
        for number in signals_to_handle():
            if not _is_ignored(number):
                signal.signal(number, self.answer)
        release()

    def answer(self, number: int, frame: FrameType | None) -> None:
        """End the process with one line and the documented code; an interrupt between imports raises KeyboardInterrupt
        as ever."""
        if self.exit_code is not None:
            os._exit(self.exit_code)
        is_importing = _is_importing(frame)
        if number == signal.SIGINT and not is_importing:
            raise KeyboardInterrupt
        if os.getpid() != self.process:
            _end_worker(number)
        if number != signal.SIGINT:
            leave_terminal(number)
        code = self.code(number)
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
            _say(f"fiber: {self.line(number)}\n")
        if is_importing:
            # An exception may be swallowed by what is being imported, and there is nothing yet to put in order.
            os._exit(code)
        raise SystemExit(code)

    def code(self, number: int) -> int:
        """The exit code of a signal."""
        if self.is_training and number != signal.SIGINT:
            return EXIT_STOPPED
        return SIGNAL_BASE + number

    def line(self, number: int) -> str:
        """What is said of it."""
        name = signal.Signals(number).name
        if self.is_training:
            return f"stopped by {name} before training began; nothing is lost, the same command starts it again"
        return f"stopped by {name}"


def leave_terminal(number: int) -> None:
    """After SIGHUP the terminal may be gone, and what is written to it an error: it goes to nowhere from here on."""
    if signal.Signals(number).name != "SIGHUP":
        return
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported where the signal came."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end_worker(number: int) -> NoReturn:
    """A process forked from this one, a reader of data, ends as if it had never heard of these handlers."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(SIGNAL_BASE + number)


def _say(text: str) -> None:
    """On standard error, past Python's buffers, which may be in use."""
    with suppress(OSError):
        os.write(2, text.encode())
