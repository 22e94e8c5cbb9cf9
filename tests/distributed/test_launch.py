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
rank, folder, what = int(os.environ["RANK"]), Path(sys.argv[1]), sys.argv[2]
def stop(*_):
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
(folder / f"{rank}-{os.getpid()}-of-{os.environ['WORLD_SIZE']}").touch()
if what == "fail" and rank == 1:
    sys.exit(3)
if what == "die" and rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
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
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": root}, cwd=tmp_path)
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


def test_signals_are_passed_on(launcher):
    process, names = launcher("wait")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == EXIT_STOPPED
    assert not alive(names)


@pytest.mark.parametrize(("what", "code"), [("fail", 3), ("die", 1)])
def test_the_others_are_ended_when_one_rank_fails(launcher, what, code):
    process, names = launcher(what)
    assert process.wait(60) == code
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
