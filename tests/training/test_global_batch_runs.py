"""A step of DeepSpeed's over the whole global batch, under its stages and precisions."""

import os
from pathlib import Path

import pytest
import torch
import yaml
from rank_processes import on_two_ranks
from small_encoder import SMALL
from toy_training import RECIPE

from benchmarks.coarse_step import random_batch
from fiber_cli.config.resolve import parse_recipe
from fiber_cli.distributed import collectives
from fiber_cli.distributed.group import init_from_env
from fiber_cli.tasks import declared
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.training.run import Run
from fiber_cli.training.work import Work

PAIRS = 8


def one_step(folder: Path, name: str, **runtime: object) -> None:
    """The weights and outputs after a step, whose updates are nearly the gradients themselves."""
    settings = {"optim.lr": 1, "optim.cross_modal_mult": 1, "optim.head_mult": 1, "optim.eps": 10, "optim.warmup": 0}
    settings |= {"optim.weight_decay": 0, "optim.schedule": "constant", "task.compare_over": "global_batch"}
    settings |= {"runtime.global_batch": PAIRS, **{f"runtime.{key}": value for key, value in runtime.items()}}
    recipe = parse_recipe(yaml.safe_dump(RECIPE), "step", [f"{key}={value}" for key, value in settings.items()])
    torch.manual_seed(0)
    task = CoarseTask(SMALL, compare_over="global_batch")
    for parameter_name, parameter in task.named_parameters():
        if parameter_name.endswith(".alpha"):
            torch.nn.init.constant_(parameter, 0.5)
    before = {key: value.detach().clone() for key, value in task.state_dict().items()}
    run = Run(recipe, work(task, recipe.runtime.micro_batch), folder)
    outcome = run.step(run.work.batches(0))
    tries = 1
    while not outcome.applied and tries < 20:  # fp16's gradients overflow at its first loss scales
        outcome = run.step(run.work.batches(0))
        tries += 1
    record = run.record(outcome)
    weights = {key: value.detach().clone() for key, value in run.task_to_keep().state_dict().items()}
    torch.save((before, weights, record), folder / f"{name}{collectives.rank()}.pt")


def work(task: CoarseTask, micro_batch: int) -> Work:
    def batches(start: int):
        whole = random_batch(SMALL, PAIRS, length=12)
        stride = micro_batch * collectives.world_size()
        for first in range(collectives.rank() * micro_batch, PAIRS, stride):
            part = {}
            for name, value in whole.items():
                part[name] = value[first : first + micro_batch] if torch.is_tensor(value) else value
            yield part | {"sample_ids": [str(first)] * micro_batch, "bad": [], "truncated": 0}

    return Work(
        task=task,
        batches=batches,
        steps=1,
        steps_per_epoch=1,
        validate=None,
        parameters=declared("coarse").parameters,
        config={},
        tokenizer=None,
    )


def alone(rank: int, folder: Path) -> None:
    """One process in micro-batches beside one process with the whole batch, which ask nothing of each other."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name)
    init_from_env(always=True)
    if rank:
        one_step(folder, "whole", micro_batch=PAIRS)
    else:
        one_step(folder, "micro", micro_batch=2, **settings_of_environment())


def together(rank: int, folder: Path) -> None:
    one_step(folder, "micro", micro_batch=2, **settings_of_environment())


def settings_of_environment() -> dict[str, object]:
    settings: dict[str, object] = {"zero_stage": int(os.environ["STAGE"]), "precision": os.environ["PRECISION"]}
    return settings | {"activation_checkpointing": os.environ["CHECKPOINTING"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The step in one batch on one rank."""
    folder = tmp_path_factory.mktemp("whole")
    ended = on_two_ranks(folder, alone, joins=False, STAGE="0", PRECISION="fp32", CHECKPOINTING="false")
    assert [each.code for each in ended] == [0, 0]
    assert [each.error for each in ended] == [None, None]
    return folder


def assert_same_step(folder: Path, expected: Path, share: float) -> None:
    """share: how much of the update may be otherwise."""
    before, ours, record = torch.load(folder)
    _, theirs, their_record = torch.load(expected)
    difference = sum((ours[name] - theirs[name]).square().sum() for name in theirs).sqrt()
    update = sum((theirs[name] - before[name]).square().sum() for name in theirs).sqrt()
    assert difference < share * update
    if share < 1e-4:
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, atol=share, rtol=share)
    for key in ("loss", "itc_loss", "itm_loss", "mlm_loss", "itm_accuracy", "grad_norm"):
        assert record[key] == pytest.approx(their_record[key], rel=share, abs=share), key


def test_a_step_of_four_micro_batches_is_another_than_that_of_one(whole):
    assert_same_step(whole / "micro0.pt", whole / "whole0.pt", 1e-5)


@pytest.mark.parametrize(
    ("stage", "precision", "checkpointing"),
    [
        (0, "fp32", False),
        (3, "fp32", False),
        (1, "fp32", False),
        (1, "fp32", True),
        (2, "fp32", False),
        (2, "bf16", False),
        (1, "fp16", False),
    ],
)
def test_a_step_of_two_ranks_of_two_micro_batches_is_another_than_that_of_one(
    whole, tmp_path, stage, precision, checkpointing
):
    environment = {"STAGE": str(stage), "PRECISION": precision, "CHECKPOINTING": str(checkpointing).lower()}
    ended = on_two_ranks(tmp_path, together, **environment)
    assert [each.error for each in ended] == [None, None]
    assert [each.code for each in ended] == [0, 0], (tmp_path / "log0").read_text()
    assert_same_step(tmp_path / "micro0.pt", whole / "whole0.pt", 1e-5 if precision == "fp32" else 0.05)
