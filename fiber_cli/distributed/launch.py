"""Starting ranks on this machine."""

import ctypes
import math
import os
import signal
import socket
import subprocess
import sys
import time

from fiber_cli.errors import EXIT_FAILED, EXIT_OK, EXIT_STOPPED

#: Those that ask a run to stop and save; Windows has no SIGUSR1.
STOP_SIGNALS = tuple(number for number in signal.Signals if number.name in ("SIGTERM", "SIGINT", "SIGUSR1"))
#: How long the other ranks may go on after one has failed.
GRACE_SECONDS = 5.0
#: Between two looks at the ranks.
POLL_SECONDS = 0.05


def free_port() -> int:
    """A TCP port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def launch(nproc: int, argv: list[str]) -> int:
    """Run `python -m fiber_cli ARGV` as `nproc` ranks on this machine and return the exit code of the run.

    SIGTERM, SIGINT and SIGUSR1 are passed on. When one rank fails the others get a moment to say what they
    have to say, then are ended, and its code is returned; EXIT_STOPPED if the ranks stopped with that.
    """
    ranks = _start(nproc, argv)

    def forward(number: int, frame: object) -> None:
        for process in ranks:
            _pass_on(process, number)

    previous = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    try:
        return _wait(ranks)
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
            process.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _start(nproc: int, argv: list[str]) -> list["subprocess.Popen[bytes]"]:
    threads = max(1, (os.cpu_count() or 1) // nproc)
    env = os.environ | {
        "WORLD_SIZE": str(nproc),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }
    ranks = []
    for rank in range(nproc):
        process = subprocess.Popen(
            [sys.executable, "-m", "fiber_cli", *argv],
            env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            # Own sessions: the terminal's Ctrl-C reaches them once, through the launcher.
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        ranks.append(process)
    return ranks


def _pass_on(process: "subprocess.Popen[bytes]", number: int) -> None:
    # Windows has no sessions, so its Ctrl-C has reached the ranks already, and no signal but this one can be sent.
    if sys.platform != "win32" or number == signal.SIGTERM:
        process.send_signal(number)


def _wait(ranks: list["subprocess.Popen[bytes]"]) -> int:
    """The exit code of the run, once all ranks have ended or one has failed and the others had their moment."""
    failed = EXIT_OK
    deadline = math.inf
    while time.monotonic() < deadline:
        codes = [process.poll() for process in ranks]
        ended = [code for code in codes if code is not None]
        failures = [code for code in ended if code not in (EXIT_OK, EXIT_STOPPED)]
        if failures and not failed:
            failed = _exit_code(failures[0])
            deadline = time.monotonic() + GRACE_SECONDS
        if len(ended) == len(ranks):
            return failed or max(ended)
        time.sleep(POLL_SECONDS)
    return failed


def _exit_code(code: int) -> int:
    """Of a process; one that was ended by a signal has failed."""
    return code if code > 0 else EXIT_FAILED


def _die_with_parent() -> None:
    """A launcher killed with SIGKILL cannot end its ranks, so the kernel does (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
