"""Signals that come before a run takes them over, or after it."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fiber_cli.stop_signals import Ending, signals_to_handle

ROOT = Path(__file__).parents[1]
#: The entry point as it is, with an import in place of the command line's that lasts.
IMPORTING = """
import sys, types
sys.path[:0] = [sys.argv[1]]
sys.argv[:2] = ["fiber"]
from fiber_cli import __main__
sys.modules.pop("fiber_cli.cli.app", None)
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "fiber_cli.cli.app":
            try:
                print("importing", flush=True)
                import time
                time.sleep(60)
            except BaseException:
                print("swallowed", flush=True)
sys.meta_path.insert(0, Slow())
__main__.main()
"""
#: The same, between imports.
WORKING = """
import sys, types, time
sys.path[:0] = [sys.argv[1]]
sys.argv[:2] = ["fiber"]
from fiber_cli import __main__
from fiber_cli.cli import app
def work():
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("put in order", flush=True)
app.main = work
__main__.main()
"""


def ended_by(number, code, *argv, **environment):
    """(exit code, what it printed, its error) of the entry point that gets a signal at its first line."""
    command = [sys.executable, "-c", code, str(ROOT), *argv]
    env = {name: value for name, value in os.environ.items() if name not in ("RANK", "SLURM_PROCID")} | environment
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("code", [IMPORTING, WORKING])
@pytest.mark.parametrize(
    ("command", "name", "exit_code"),
    [
        ("pretrain", "SIGTERM", 75),
        ("finetune", "SIGHUP", 75),
        ("odinw", "SIGUSR1", 75),
        ("ablate", "SIGTERM", 75),
        ("few-shot", "SIGTERM", 75),
        ("eval", "SIGTERM", 143),
        ("caption", "SIGHUP", 129),
    ],
)
def test_a_signal_before_the_first_step_has_another_code_or_more_than_a_line(code, command, name, exit_code):
    status, _, err = ended_by(signal.Signals[name], code, command)
    assert status == exit_code
    assert len(err.splitlines()) == 1
    assert err.startswith(f"fiber: stopped by {name}")


@pytest.mark.parametrize("command", ["pretrain", "eval"])
def test_an_interrupt_during_imports_is_a_traceback(command):
    status, out, err = ended_by(signal.SIGINT, IMPORTING, command)
    assert (status, out) == (130, "")
    assert err.startswith("fiber: stopped by SIGINT")
    assert len(err.splitlines()) == 1


def test_what_a_command_has_begun_is_left_as_it_is():
    assert ended_by(signal.SIGTERM, WORKING, "eval")[1] == "put in order\n"


def test_every_rank_says_that_it_is_stopped():
    assert ended_by(signal.SIGTERM, IMPORTING, "pretrain", RANK="1") == (75, "", "")


def test_signals_that_a_launcher_has_held_back_are_lost():
    def hold_back():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    command = [sys.executable, "-c", "import time; time.sleep(0.5)\n" + IMPORTING, str(ROOT), "pretrain"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hold_back)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75


def test_a_hangup_stops_what_nohup_started(monkeypatch):
    assert signal.SIGHUP in signals_to_handle()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in signals_to_handle()
        Ending(["pretrain"]).install()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_after_a_hangup_a_line_for_the_terminal_is_an_error():
    code = (
        "import os, signal, sys\n"
        "from fiber_cli.stop_signals import leave_terminal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "sys.stdin.read()\n"
        "leave_terminal(signal.SIGHUP)\n"
        "print('a line', flush=True)\n"
        "os.write(2, b'another')\n"
        "os._exit(7)\n"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.close(ours)
    process.communicate(timeout=60)
    assert process.returncode == 7


def test_a_signal_at_the_very_end_changes_the_exit_code():
    code = WORKING.replace("time.sleep(60)", "sys.exit(3)").replace(
        "__main__.main()",
        "import atexit\natexit.register(lambda: (print('ending', flush=True), time.sleep(20)))\n__main__.main()",
    )
    code = code.replace('print("working", flush=True)', "pass").replace('print("put in order", flush=True)', "pass")
    assert ended_by(signal.SIGTERM, code, "eval")[0] == 3
