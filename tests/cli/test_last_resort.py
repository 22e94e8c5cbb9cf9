"""Errors that nothing foresees end in one line and a report; readers that are gone, in silence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fiber_cli
from fiber_cli.cli.last_resort import flushed

ROOT = Path(__file__).parents[2]
TRAINING = ("pretrain", "coarse", "--recipe", "tiny")


@pytest.fixture
def reports(tmp_path, monkeypatch) -> Path:
    """Where reports of this test are."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("FIBER_DEBUG", raising=False)
    return tmp_path / "state" / "fiber"


class Panic(BaseException):
    """No Exception, as the panics of some libraries."""


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("CUDA error\nsecond line\n  third"), "fiber: RuntimeError: CUDA error; the full report is in "),
        (MemoryError(), "fiber: MemoryError; the full report is in "),
        (RecursionError("maximum depth"), "fiber: RecursionError: maximum depth; the full report is in "),
        (KeyError("name"), "fiber: KeyError: 'name'; the full report is in "),
        (AssertionError(), "fiber: AssertionError; the full report is in "),
        (Panic("index out of bounds"), "fiber: Panic: index out of bounds; the full report is in "),
        (Mute(), "fiber: Mute; the full report is in "),
        (ExceptionGroup("two", [ValueError("a"), TypeError("b")]), "fiber: ExceptionGroup: two (2 sub-exceptions)"),
    ],
)
def test_any_error_is_one_line_with_its_report(run, calls, reports, error, line):
    calls.error = error
    code, out, err = run(*TRAINING)
    assert (code, out) == (1, "")
    assert err.startswith(line)
    assert len(err.splitlines()) == 1
    (report,) = reports.iterdir()
    assert str(report) in err
    text = report.read_text()
    assert text.startswith("command: fiber pretrain coarse --recipe tiny\n")
    assert f"fiber {fiber_cli.__version__}" in text
    assert "Traceback" in text
    assert type(error).__name__ in text


def test_every_rank_has_a_report_of_its_own(run, calls, reports, monkeypatch):
    calls.error = RuntimeError("gone")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        code, _, err = run(*TRAINING, "--output", f"out{rank}")
        assert code == 1
        assert len(err.splitlines()) == 1
        assert f"-rank{rank}-" in err
    assert len(list(reports.iterdir())) == 2


def test_debugging_prints_the_traceback(run, calls, reports, monkeypatch):
    monkeypatch.setenv("FIBER_DEBUG", "1")
    calls.error = RuntimeError("gone")
    code, _, err = run(*TRAINING)
    assert code == 1
    assert err.startswith("Traceback")
    assert err.endswith("RuntimeError: gone\n")
    assert not reports.exists()


def test_a_report_that_cannot_be_written_costs_no_line(run, calls, reports, tmp_path, monkeypatch):
    calls.error = RuntimeError("gone")
    reports.parent.write_text("a file in the way")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, _, err = run(*TRAINING)
    assert code == 1
    (written,) = tmp_path.glob("fiber-*error-*.txt")  # a temporary file instead
    assert str(written) in err
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    code, _, err = run(*TRAINING)
    assert code == 1
    assert err.startswith("fiber: RuntimeError: gone; a report could not be written (FileNotFoundError: ")
    assert len(err.splitlines()) == 1


def test_ctrl_c_has_its_own_code(run, calls, reports):
    calls.error = KeyboardInterrupt()
    code, out, err = run(*TRAINING)
    assert (code, out) == (130, "")
    assert "Traceback" not in err


@pytest.mark.parametrize("command", [["recipes", "schema"], ["recipes", "show", "4m"], ["--help"]])
def test_a_reader_that_is_gone_ends_it_quietly(command):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "fiber_cli", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1
    buffered = subprocess.run(
        f"{sys.executable} -m fiber_cli {' '.join(command)} | true", shell=True, cwd=ROOT, capture_output=True
    )
    assert buffered.stderr == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_standard_output_that_is_full_is_one_line():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fiber_cli", "recipes"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "No space left on device" in done.stderr


def test_the_code_stays_where_all_is_written(capsys):
    assert [flushed(code) for code in (0, 2, 75, None)] == [0, 2, 75, None]
