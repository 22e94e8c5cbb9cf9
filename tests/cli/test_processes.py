"""Which process speaks, and how more are started."""

from types import SimpleNamespace

import pytest
import typer

from fiber_cli.cli.processes import is_first_rank, launch_ranks


def test_one_process_is_the_first_under_every_launcher(monkeypatch):
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_rank()
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert not is_first_rank()
    monkeypatch.setenv("RANK", "0")
    assert is_first_rank()


def test_ranks_get_the_command_with_what_is_settled(calls):
    calls.code = 75
    context = SimpleNamespace(obj=["eval", "scenes", "--nproc", "4"])
    with pytest.raises(typer.Exit) as ended:
        launch_ranks(context, 4, "--checkpoint", "c")
    assert ended.value.exit_code == 75
    assert calls.launch == [(4, ["eval", "scenes", "--nproc", "4", "--checkpoint", "c", "--nproc", "1"])]
