"""How ranks find one another."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rank_processes import on_two_ranks

from fiber_cli.distributed import meeting
from fiber_cli.distributed.launch import free_port
from fiber_cli.distributed.meeting import meet, timeout_seconds
from fiber_cli.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_waits_in_silence_or_for_ever(rank, monkeypatch, capsys):
    monkeypatch.setattr(meeting, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setenv("FIBER_TIMEOUT", "1")
    port = free_port()
    absent = "ranks 1 to 2" if rank == 0 else "rank 0"
    with pytest.raises(
        UserError, match=rf"rank {rank} on .*: {absent} of 3 did not come to 127.0.0.1:{port} within 1 s"
    ):
        meet(rank, 3, "127.0.0.1", port)
    assert capsys.readouterr().err == (
        f"rank {rank} on {meeting.host()} waits at 127.0.0.1:{port} for {absent} of 3, 1 s at most (FIBER_TIMEOUT)\n"
    )


def test_a_machine_that_is_not_there_is_waited_for_in_silence(monkeypatch, capsys):
    monkeypatch.setattr(meeting, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setenv("FIBER_TIMEOUT", "1")
    with pytest.raises(UserError, match=r"rank 0 of 2 did not come to nowhere\.invalid:29500"):
        meet(1, 2, "nowhere.invalid", 29500)
    assert "waits at nowhere.invalid:29500 for rank 0" in capsys.readouterr().err


def test_a_port_that_is_taken_is_a_traceback():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="MASTER_PORT to a port that is free"):
            meet(0, 2, "127.0.0.1", port)


def nothing(rank, folder):
    return rank


def test_ranks_that_are_there_are_waited_for(tmp_path):
    assert [ended.result for ended in on_two_ranks(tmp_path, nothing)] == [0, 1]
    assert not [log for log in ("log0", "log1") if "waits" in (tmp_path / log).read_text()]


@pytest.mark.parametrize(("text", "seconds"), [("", 1800.0), ("90", 90.0), ("1e4", 10000.0)])
def test_the_timeout_is_not_the_one_that_is_named(text, seconds, monkeypatch):
    monkeypatch.setenv("FIBER_TIMEOUT", text)
    assert timeout_seconds() == seconds


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", "inf", "10min"])
def test_a_timeout_that_is_no_time_is_taken(text, monkeypatch):
    monkeypatch.setenv("FIBER_TIMEOUT", text)
    with pytest.raises(UserError, match="FIBER_TIMEOUT"):
        timeout_seconds()


def test_a_rank_that_waits_does_not_answer_a_signal(tmp_path):
    env = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    code = "from fiber_cli.distributed import meeting, group\nmeeting.PATIENCE_SECONDS = 0.1\ngroup.init_from_env()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | env | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "waits" in process.stderr.readline()
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == -15
