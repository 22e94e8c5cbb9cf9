"""Which process speaks, and how more are started."""

from types import SimpleNamespace

import pytest
import typer

from fiber_cli.cli.processes import is_first_rank, launch_ranks, refuse_ranks, run_command
from fiber_cli.errors import UserError


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


@pytest.mark.parametrize("command", ["ablate", "few-shot", "odinw"])
@pytest.mark.parametrize(("code", "signals", "ends"), [(0, {2}, 75), (143, {15}, 75), (75, set(), 75), (1, {2}, 1)])
def test_a_stop_at_the_end_of_one_command_goes_on_with_the_next(monkeypatch, capsys, command, code, signals, ends):
    def launch(nproc, arguments, *, name, asked):
        asked.update(signals)
        return code

    monkeypatch.setattr("fiber_cli.distributed.launch.launch", launch)
    with pytest.raises(typer.Exit) as ended:
        run_command(command, 1, ["eval", "scenes"])
    assert ended.value.exit_code == ends
    assert (f"{command}: stopped; the same command again goes on" in capsys.readouterr().err) == (ends == 75)


def test_a_command_that_ends_well_ends_what_consists_of_it(monkeypatch):
    monkeypatch.setattr("fiber_cli.distributed.launch.launch", lambda *_, **__: 0)
    run_command("ablate", 1, ["eval", "scenes"])


def test_a_command_that_starts_trainings_runs_in_every_rank(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="fiber odinw starts its processes itself"):
        refuse_ranks("odinw")
    monkeypatch.delenv("WORLD_SIZE")
    refuse_ranks("odinw")
