"""A toy task and loader that drive the engine's loop, for test_engine.py."""

import json
import os
import resource
import signal
import sys
from pathlib import Path

import torch
import yaml
from torch import nn

from fiber_cli.distributed import collectives as dist
from fiber_cli.training import engine
from fiber_cli.training.work import Work
from fiber_cli.errors import UserError
from fiber_cli.config.resolve import parse_recipe

GLOBAL_BATCH = 8
#: Loaders that are read, and a frame that keeps its callers' variables, as a library's error report may do.
OPEN, FRAMES = [], []


class Toy(nn.Module):
    """Parameters of every kind the real task has: matrices, a norm, a scalar, one without gradient, dropout,
    and a memory between steps."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"a": nn.Linear(6, 16), "norm": nn.LayerNorm(16)})
        self.dropout = nn.Dropout(0.0)
        self.mlm = nn.ModuleDict({"out": nn.Linear(16, 4)})
        self.temperature = nn.Parameter(torch.tensor(0.5))
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("memory", torch.zeros(4), persistent=False)
        self.memory_weight, self.loss_factor = 0.1, 1.0

    def forward(self, batch):
        x = self.dropout(self.encoder["norm"](self.encoder["a"](batch["x"])).relu())
        y = self.mlm["out"](x)
        poison = batch["poison"].sum()
        loss = (
            (y - batch["y"] - self.memory_weight * self.memory).square().mean()
            + self.temperature.square().sum()
            + poison
        )
        loss = loss * self.loss_factor
        FRAMES[:] = [sys._getframe()]
        if self.training:
            self.memory = 0.9 * self.memory + 0.1 * dist.all_reduce_sum(y.mean(0)) / dist.world_size() + poison
        return {"loss": loss, "toy_loss": loss.detach(), "drawn": torch.rand(())}

    def step_state(self):
        return {"memory": self.memory}

    resume_state = step_state

    def load_resume_state(self, state):
        self.memory = state["memory"].to(self.memory.device)


def recipe(**over):
    """A recipe with `section.key=value` overrides given as section__key=value."""
    text = yaml.safe_dump(
        {
            "model": {"preset": "tiny"},
            "task": {"name": "coarse"},
            "data": {"train": [{"kind": "scenes", "count": 64}], "workers": 0},
            "optim": {"lr": 0.01, "steps": 8, "warmup": 2},
            "runtime": {"micro_batch": GLOBAL_BATCH, "global_batch": GLOBAL_BATCH, "seed": 3},
            "log": {"every": 1, "save_every": 4},
        }
    )
    overrides = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in over.items()]
    return parse_recipe(text, "toy", overrides)


def work(
    recipe,
    *,
    dropout=0.0,
    memory_weight=0.1,
    loss_factor=1.0,
    poison=(),
    poison_value=float("nan"),
    kill_at=None,
    signal_at=None,
    full_at=None,
    shown=None,
):
    """The toy's work. poison: (step, rank) pairs whose last micro-batch has a loss of `poison_value`. kill_at
    and signal_at: the step during which this process sends itself SIGKILL or SIGTERM. full_at: the step from
    which files cannot grow past 8,000 bytes, like on a full disk."""
    torch.manual_seed(0)
    task = Toy()
    task.dropout.p, task.memory_weight, task.loss_factor = dropout, memory_weight, loss_factor
    micro, world, rank = recipe.runtime.micro_batch, dist.world_size(), dist.rank()

    def micro_batches(start):
        for step in range(start, recipe.optim.steps):
            if step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if step == signal_at and rank == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            if step == full_at:
                resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
            generator = torch.Generator().manual_seed(100 + step)
            x = torch.randn(GLOBAL_BATCH, 6, generator=generator)
            y = torch.randn(GLOBAL_BATCH, 4, generator=generator)
            for first in range(rank * micro, GLOBAL_BATCH, micro * world):
                rows = slice(first, first + micro)
                last = first + micro * world >= GLOBAL_BATCH
                bad = [step, rank] in [list(pair) for pair in poison] and last
                yield {
                    "x": x[rows],
                    "y": y[rows],
                    "poison": torch.tensor([poison_value if bad else 0.0]),
                    "sample_ids": [f"s{step}-{i}" for i in range(first, first + micro)],
                    "bad": [],
                    "truncated": 0,
                }

    def batches(start):
        OPEN.append(start)
        try:
            yield from micro_batches(start)
        finally:
            OPEN.pop()

    values = iter(shown or [])
    validate = (lambda task: {"itc/ir@1": next(values)}) if shown else None
    return Work(task, batches, recipe.optim.steps, 4, validate, {"model": {}, "task": {"name": "toy"}}, None)


def run(output, options, env, log):
    """One rank, in a process of its own; exits with the engine's code. `log` takes what it prints."""
    os.environ.update(env)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    dist.init_from_env(always=True)
    torch.set_num_threads(1)
    settings = recipe(**options.get("recipe", {}))
    try:
        toy = work(settings, **options.get("work", {}))
        code = engine.train(settings, toy, Path(output), resume=options.get("resume", False))
    except UserError as error:
        print(f"UserError: {error}", flush=True)
        code = 1
    if OPEN:
        print("the loader was left open, its workers running", flush=True)
        code = 99
    os._exit(code)
