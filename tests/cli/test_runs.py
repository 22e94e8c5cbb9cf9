"""Runs below the current folder."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from fiber_cli.checkpoints import config
from fiber_cli.cli.runs import newest_checkpoint, run_of
from fiber_cli.errors import UserError


@pytest.fixture
def tasks_of_runs(tmp_path, monkeypatch):
    """Makes runs by name and task, the first the oldest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("SLURM_PROCID", raising=False)

    def make(**tasks):
        for age, name in enumerate(tasks):
            checkpoint = tmp_path / "runs" / name / "checkpoints" / "step-000001"
            checkpoint.mkdir(parents=True)
            (checkpoint / "config.json").write_text(name)
            latest = checkpoint.parent / "latest"
            latest.write_text(checkpoint.name)
            os.utime(latest, (1e9 + age, 1e9 + age))

        def read_config(path):
            return SimpleNamespace(task=SimpleNamespace(name=tasks[(path / "config.json").read_text()]))

        monkeypatch.setattr(config, "read_config", read_config)

    return make


def test_the_newest_run_of_a_fitting_task_is_found_and_told(tasks_of_runs, capsys, monkeypatch):
    tasks_of_runs(older="vqa", newer="vqa", newest="caption")
    assert newest_checkpoint(("vqa", "nlvr2")) == Path("runs/newer/checkpoints/latest")
    assert capsys.readouterr().err == "checkpoint: runs/newer, the newest run\n"
    monkeypatch.setenv("RANK", "1")
    newest_checkpoint(("caption",))
    assert capsys.readouterr().err == ""


def test_a_folder_without_a_fitting_run_is_told(tasks_of_runs):
    tasks_of_runs(older="vqa")
    with pytest.raises(UserError, match=r"no runs/\*/checkpoints/latest of task fine or detection below the current"):
        newest_checkpoint(("fine", "detection"))


def test_a_checkpoint_directory_tells_its_run():
    assert run_of(Path("runs/x/checkpoints/step-000001")) == Path("runs/x")
    assert run_of(Path("converted")) == Path("converted")
