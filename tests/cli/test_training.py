"""`fiber pretrain` and `fiber finetune`: what they resolve, hand over and refuse."""

import os
import sys
from pathlib import Path

import pytest

from fiber_cli.cli.training import continues_another, trained_by
from fiber_cli.tasks import TASKS


def test_every_task_has_one_command():
    assert trained_by("pretrain") == ("coarse", "fine")
    assert {*trained_by("pretrain"), *trained_by("finetune")} == set(TASKS)
    assert len(trained_by("finetune")) == len(TASKS) - 2


def test_pretrain_hands_the_resolved_recipe_over(run, calls):
    assert run("pretrain", "coarse", "--recipe", "tiny", "optim.steps=7", "log.every=2")[0] == 0
    ((recipe, output, resume, init_from),) = calls.fit
    assert (recipe.name, recipe.optim.steps, recipe.log.every) == ("tiny", 7, 2)
    assert (output, resume, init_from) == (Path("runs/tiny"), False, None)
    assert run("pretrain", "coarse", "optim.steps=7", "--recipe=tiny", "--output", "x", "--init-from", "c")[0] == 0
    assert calls.fit[1][1:] == (Path("x"), False, Path("c"))


def test_precision_and_device_do_not_reach_a_training(run, calls, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    command = ("pretrain", "coarse", "--recipe", "tiny", "--precision", "bf16")
    assert run(*command, "--device", "cpu")[0] == 0
    assert calls.fit[0][0].runtime.precision == "bf16"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    code, _, err = run(*command, "--device", "mps")
    assert code == 2
    assert "give cpu or cuda" in err
    assert run(*command[:-1], "int8")[0] == 2
    assert run(*command, "runtime.precision=bf16")[0] == 0
    code, _, err = run(*command, "runtime.precision=fp32")
    assert code == 2
    assert "--precision bf16 beside runtime.precision=fp32: give one of them" in " ".join(err.replace("│", " ").split())


def test_a_training_is_not_where_the_environment_says(run, calls, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    command = ("pretrain", "coarse", "--recipe", "tiny")
    monkeypatch.setenv("FIBER_DEVICE", "mps")
    code, _, err = run(*command)
    assert code == 2
    assert "FIBER_DEVICE=mps: give cpu or cuda" in err
    monkeypatch.setenv("FIBER_DEVICE", "cuda")
    code, _, err = run(*command)
    assert code == 1
    assert "FIBER_DEVICE=cuda: this machine has no GPU that PyTorch can use" in err
    assert not calls.fit
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert run(*command, "--device", "cpu")[0] == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("FIBER_DEVICE", "cpu")
    assert run(*command)[0] == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_command_that_trains_nothing_is_held_to_the_devices_of_trainings(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIBER_DEVICE", "mps")
    assert run("table", "4")[0] == 0


def test_a_gpu_is_trained_on_that_is_not_there(run, calls, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, err = run("finetune", "vqa", "--recipe", "tiny_vqa", "--device", "cuda")
    assert code == 1
    assert "--device cuda: this machine has no GPU that PyTorch can use" in err
    assert not calls.fit


def test_the_latest_checkpoint_of_the_run_to_start_from_is_asked_for(run, calls, monkeypatch):
    resolved = []

    def resolve(path, *, latest):
        resolved.append((path, latest))
        return Path("c/step")

    monkeypatch.setattr(sys.modules["fiber_cli.checkpoints.directory"], "resolve", resolve)
    assert run("finetune", "vqa", "--recipe", "tiny_vqa", "--init-from", "c", "--latest")[0] == 0
    assert resolved == [(Path("c"), True)]
    assert calls.fit[0][3] == Path("c/step")
    code, _, err = run("pretrain", "coarse", "--recipe", "tiny", "--resume", "--latest")
    assert code == 2
    assert "--latest is of the run that --init-from names" in err


def test_pretrain_passes_the_exit_code_on(run, calls):
    calls.code = 75
    assert run("pretrain", "coarse", "--recipe", "tiny")[0] == 75


def test_random_weights_are_told_where_weights_are_usual(run, calls):
    assert not continues_another("coarse")
    assert all(continues_another(task) for task in TASKS if task != "coarse")
    message = "no --init-from: training starts from random weights\n"
    assert run("finetune", "vqa", "--recipe", "tiny_vqa")[2] == message
    assert message not in run("finetune", "vqa", "--recipe", "tiny_vqa", "--init-from", "c")[2]
    assert message not in run("pretrain", "coarse", "--recipe", "tiny")[2]


def test_dry_run_needs_no_output(run, calls, tmp_path):
    (tmp_path / "runs/tiny").mkdir(parents=True)
    (tmp_path / "runs/tiny/x").touch()
    assert run("pretrain", "coarse", "--recipe", "tiny", "--dry-run")[0] == 0
    assert calls.dry_run[0].name == "tiny"
    assert not calls.fit


def test_output_that_is_not_empty_needs_resume(run, calls, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    arguments = ("pretrain", "coarse", "--recipe", "tiny", "--output", "out")
    assert run(*arguments)[0] == 0
    (tmp_path / "out/metrics.jsonl").write_text('{"step": 1}\n')
    code, _, err = run(*arguments)
    assert code == 1
    assert "--resume" in err
    assert "--output" in err
    assert "Traceback" not in err
    assert len(calls.fit) == 1
    assert run(*arguments, "--resume")[0] == 0
    assert calls.fit[1][2] is True
    # The first rank may have begun to write before the others look.
    monkeypatch.setenv("RANK", "1")
    assert run(*arguments)[0] == 0
    monkeypatch.setenv("RANK", "0")
    assert run(*arguments)[0] == 1


def test_every_rank_asks_the_hub(run, calls, monkeypatch):
    remote = sys.modules["fiber_cli.checkpoints.remote"]
    monkeypatch.setattr(remote, "local", lambda named: Path("/cache", named))
    given = ["--recipe", "tiny", "--init-from", "org/name", "runtime.micro_batch=8", "runtime.global_batch=16"]
    assert run("pretrain", "coarse", *given, "--nproc", "2")[0] == 0
    ((_, passed),) = calls.launch
    assert passed[passed.index("--init-from", 6) + 1] == "/cache/org/name"
    assert run("pretrain", "coarse", *given)[0] == 0
    assert calls.fit[0][3] == Path("/cache/org/name")


@pytest.mark.parametrize("option", [["--nproc", "2"], ["--nproc=2"]])
def test_nproc_launches_the_same_command_as_single_processes(run, calls, option):
    calls.code = 75
    given = ["--recipe", "recipes/tiny.yaml", "runtime.micro_batch=8", "runtime.global_batch=16"]
    argv = ["pretrain", "coarse", *option, *given]
    code, _, err = run(*argv)
    assert code == 75
    assert not calls.fit
    ((nproc, passed),) = calls.launch
    assert nproc == 2
    assert passed[: len(argv)] == argv
    # What the parent has looked up, and said, the ranks find at once.
    assert err.count("does not exist") == 1
    calls.code = 0
    code, _, err = run(*passed)
    assert code == 0
    assert err == ""
    assert calls.fit[0][0].name == "tiny"


def test_ranks_that_do_not_divide_the_global_batch_are_refused(run, calls):
    assert run("pretrain", "coarse", "--recipe", "tiny", "--nproc", "3")[0] == 0
    assert len(calls.launch) == 1
