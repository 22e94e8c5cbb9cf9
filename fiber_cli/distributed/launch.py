"""Starting ranks on this machine."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

from fiber_cli.distributed.rank_ends import End, conclude
from fiber_cli.distributed.rank_report import PIPE, read_reports
from fiber_cli.errors import EXIT_OK, EXIT_STOPPED
from fiber_cli.printing import say_lines
from fiber_cli.stop_signals import die_with_parent, held_back, leave_terminal, signals_to_handle

#: How long the other ranks may go on after one has failed.
GRACE_SECONDS = 5.0
#: How long they may go on after one has stopped as it was asked to; they save together, so that they end together.
STOPPED_GRACE_SECONDS = 120.0
STANDARD_ERROR = 2
#: Between two looks at the ranks.
POLL_SECONDS = 0.05


def free_port() -> int:
    """A TCP port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def launch(nproc: int, argv: list[str], *, name: str = "", asked: set[int] | None = None, aside: bool = False) -> int:
    """Run `python -m fiber_cli ARGV` as `nproc` ranks on this machine and return the exit code of the run.

    SIGTERM, SIGINT, SIGUSR1 and SIGHUP are passed on. When one rank fails the others get a moment to say what they
    have to say, then are ended; the last line on standard error names the rank that failed and why, and its code is
    returned; EXIT_STOPPED if the ranks stopped with that. name: what ran, for that line. asked: gets the signals that
    were passed on, of which a run that was at its end tells nothing. aside: what the ranks show goes to standard error.
    """
    ranks: list[_Rank] = []
    if asked is None:
        asked = set()

    def forward(number: int, frame: object) -> None:
        leave_terminal(number)
        asked.add(number)
        for rank in ranks:
            _pass_on(rank.process, number)

    previous = {number: signal.signal(number, forward) for number in signals_to_handle()}
    try:
        with held_back():
            env = _environment(nproc)
            for number in range(nproc):
                ranks.append(_Rank(number, argv, env, aside=aside))
        ends = _wait(ranks)
    finally:
        for rank in ranks:
            rank.end()
        for handled, handler in previous.items():
            signal.signal(handled, handler)
    conclusion = conclude(ends, asked, nproc)
    for line in conclusion.lines:
        say_lines(f"fiber: {line}{name and f' ({name})'}")
    return conclusion.code


class _Rank:
    """A rank that runs or has ended."""

    def __init__(self, number: int, argv: list[str], env: dict[str, str], *, aside: bool):
        self.number = number
        self.reported = b""
        self.pipe: int | None = None
        env = env | {"RANK": str(number), "LOCAL_RANK": str(number)}
        command = [sys.executable, "-m", "fiber_cli", *argv]
        shown = STANDARD_ERROR if aside else None
        if sys.platform == "win32":
            self.process = subprocess.Popen(command, env=env, stdout=shown)
            return
        self.pipe, written = os.pipe()
        os.set_blocking(self.pipe, False)
        self.process = subprocess.Popen(
            command,
            env=env | {PIPE: str(written)},
            stdout=shown,
            pass_fds=(written,),
            # Own sessions: the terminal's Ctrl-C reaches them once, through the launcher.
            start_new_session=True,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )
        os.close(written)

    def has_ended(self) -> bool:
        """Reads what the rank reports, so that it never waits for its reader."""
        code = self.process.poll()
        self._read()
        return code is not None

    def _read(self) -> None:
        if self.pipe is not None:
            with suppress(BlockingIOError):  # nothing new
                while content := os.read(self.pipe, 65536):
                    self.reported += content

    def ended(self) -> End:
        """How it has ended; of what it reported the last counts."""
        reports = read_reports(self.reported)
        return End(self.number, self.process.returncode, reports[-1] if reports else None)

    def end(self) -> None:
        """Kill what still runs of the rank, its readers of data included."""
        if self.process.poll() is None:
            if sys.platform == "win32":
                self.process.kill()
            else:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None


def _pass_on(process: "subprocess.Popen[bytes]", number: int) -> None:
    # Windows has no sessions, so its Ctrl-C has reached the ranks already, and no signal but this one can be sent.
    if sys.platform != "win32" or number == signal.SIGTERM:
        process.send_signal(number)


def _environment(nproc: int) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // nproc)
    return os.environ | {
        "WORLD_SIZE": str(nproc),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }


def _wait(ranks: list[_Rank]) -> list[End]:
    """The ends, in their order, once all ranks have ended or one has and the others had their moment."""
    ends: list[End] = []
    running = list(ranks)
    deadline = math.inf
    while running and time.monotonic() < deadline:
        for rank in list(running):
            if not rank.has_ended():
                continue
            running.remove(rank)
            ends.append(rank.ended())
            deadline = min(deadline, time.monotonic() + _grace(ends[-1].code))
        time.sleep(POLL_SECONDS)
    return ends


def _grace(code: int) -> float:
    """How long the others may go on after one has ended."""
    if code == EXIT_OK:
        return math.inf
    return STOPPED_GRACE_SECONDS if code == EXIT_STOPPED else GRACE_SECONDS
