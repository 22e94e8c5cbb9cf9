"""The launcher, over a stand-in for the command line."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fiber_cli.distributed.launch import free_port
from fiber_cli.errors import EXIT_STOPPED

#: What the ranks run: rank 1 may fail, the others wait to be stopped.
CHILD = """
import os, signal, sys, time
from pathlib import Path
sys.path[:0] = [os.environ["ROOT"]]
for name in [name for name in sys.modules if name.startswith("fiber_cli")]:
    del sys.modules[name]
from fiber_cli.distributed.rank_report import Report, report
rank, folder, what = int(os.environ["RANK"]), Path(sys.argv[1]), sys.argv[2]
def stop(*_):
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
    signal.signal(signal.SIGHUP, stop)
signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
(folder / f"{rank}-{os.getpid()}-of-{os.environ['WORLD_SIZE']}").touch()
if what == "fail" and rank == 1:
    sys.exit(3)
if what.startswith("SIG") and rank == 1:
    os.kill(os.getpid(), signal.Signals[what])
if what == "tell" and rank == 1:
    report(Report("no such images"))
    sys.exit(1)
if what == "follow" and rank == 1:
    report(Report("no such images"))
    sys.exit(1)
if what == "follow":
    report(Report("another rank has ended", follows=True))
    sys.exit(1)
if what == "all":
    report(Report("no such images"))
    sys.exit(1)
if what != "done":
    time.sleep(60)
"""
LAUNCH = """
import os, sys
from fiber_cli.distributed import launch
launch.GRACE_SECONDS = 0.5
os.chdir(sys.argv[1])
os.environ["PYTHONPATH"] = "."
sys.exit(launch.launch(2, sys.argv[2:]))
"""


@pytest.fixture
def launcher(tmp_path):
    """Starts `launch` over a stand-in for the command line; returns the process and where its ranks sign in."""
    package, signed = tmp_path / "fake" / "fiber_cli", tmp_path / "signed"
    package.mkdir(parents=True)
    signed.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(CHILD)
    root = str(Path(__file__).parents[2])

    def start(what):
        command = [sys.executable, "-c", LAUNCH, str(package.parent), str(signed), what]
        process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": root, "ROOT": root},
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while len(list(signed.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        return process, sorted(path.name for path in signed.iterdir())

    return start


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return " Z " not in state


def alive(names):
    """Whether any of the signed-in ranks still runs; waits a moment for the dying."""
    pids = [int(name.split("-")[1]) for name in names]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(is_running(pid) for pid in pids):
            return False
        time.sleep(0.05)
    return True


def test_each_rank_gets_its_number(launcher):
    process, names = launcher("done")
    assert process.wait(60) == 0
    assert [(name.split("-")[0], name.split("-")[3]) for name in names] == [("0", "2"), ("1", "2")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(launcher, number):
    process, names = launcher("wait")
    process.send_signal(number)
    assert process.wait(60) == EXIT_STOPPED
    assert not alive(names)


@pytest.mark.parametrize(
    ("what", "code", "line"),
    [
        ("fail", 3, "fiber: rank 1 failed with exit code 3; what it printed is above"),
        ("SIGKILL", 1, "fiber: rank 1 was ended by SIGKILL, likely out of memory, so that the kernel ended it"),
        ("SIGSEGV", 1, "fiber: rank 1 was ended by SIGSEGV, likely a fault in a compiled package"),
        ("SIGBUS", 1, "fiber: rank 1 was ended by SIGBUS, likely shared memory is full"),
        ("tell", 1, "fiber: rank 1: no such images"),
        ("follow", 1, "fiber: rank 1: no such images"),
        ("all", 1, "fiber: no such images"),
    ],
)
def test_the_others_are_ended_and_the_rank_that_failed_is_not_named_at_last(launcher, what, code, line):
    process, names = launcher(what)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.splitlines()[-1].startswith(line)
    assert not alive(names)


def test_a_hangup_stops_what_nohup_started(launcher):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process, names = launcher("wait")
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.terminate()
    assert process.wait(60) == EXIT_STOPPED
    assert not alive(names)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the ranks of a killed launcher")
def test_ranks_die_with_a_killed_launcher(launcher):
    process, names = launcher("wait")
    process.kill()
    process.wait(60)
    assert not alive(names)


def test_a_free_port_can_be_listened_on():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
