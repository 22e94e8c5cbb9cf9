"""A toy task that drives the training loop, and one rank of a run of it."""

import json
import os
import resource
import signal
import sys
from pathlib import Path

import torch
import yaml
from torch import nn

from fiber_cli.config.resolve import parse_recipe
from fiber_cli.distributed import collectives
from fiber_cli.distributed.group import init_from_env
from fiber_cli.errors import UserError
from fiber_cli.tasks.base import Comparison, Task
from fiber_cli.tasks.declaration import ParameterKinds
from fiber_cli.training.fit import train
from fiber_cli.training.work import Work

GLOBAL_BATCH = 8
PARAMETERS = ParameterKinds(heads=("mlm.",), cross_modal=(), backbone=("temperature", "unused"))
RECIPE = {
    "model": {"preset": "tiny"},
    "task": {"name": "coarse"},
    "data": {"train": [{"kind": "scenes", "count": 64}], "workers": 0},
    "optim": {"lr": 0.01, "steps": 8, "warmup": 2},
    "runtime": {"micro_batch": GLOBAL_BATCH, "global_batch": GLOBAL_BATCH, "seed": 3},
    "log": {"every": 1, "save_every": 4},
}
#: The first steps of the loaders that are being read, and a frame that keeps its callers' variables, as a library's
#: error report may do.
OPEN, FRAMES = [], []


class Toy(Task):
    """Parameters of every kind the real tasks have: matrices, a norm, a scalar, one without gradient, dropout,
    and a memory between steps."""

    def __init__(self, *, dropout=0.0, memory_weight=0.1, loss_factor=1.0):
        super().__init__()
        self.encoder = nn.ModuleDict({"a": nn.Linear(6, 16), "norm": nn.LayerNorm(16)})
        self.dropout = nn.Dropout(dropout)
        self.mlm = nn.ModuleDict({"out": nn.Linear(16, 4)})
        self.temperature = nn.Parameter(torch.tensor(0.5))
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("memory", torch.zeros(4), persistent=False)
        self.memory_weight = memory_weight
        self.loss_factor = loss_factor

    def forward(self, batch):
        x = self.dropout(self.encoder["norm"](self.encoder["a"](batch["x"])).relu())
        y = self.mlm["out"](x)
        poison = batch["poison"].sum()
        error = y - batch["y"] - self.memory_weight * self.memory
        loss = error.square().mean() + self.temperature.square().sum() + poison
        loss = loss * self.loss_factor
        FRAMES[:] = [sys._getframe()]
        if self.training:
            mean = collectives.all_reduce_sum(y.mean(0)) / collectives.world_size()
            self.memory = 0.9 * self.memory + 0.1 * mean + poison
        return {"loss": loss, "toy_loss": loss.detach(), "drawn": torch.rand(())}

    def predict(self, batch):
        raise NotImplementedError("the toy is only trained")

    @property
    def comparisons(self):
        return (Comparison("toy", "the toy compares"),)

    def step_state(self):
        return {"memory": self.memory}

    def load_resume_state(self, state):
        self.memory = state["memory"].to(self.memory.device)


def recipe(changes=None):
    """The toy's recipe; changes: dotted setting → value."""
    overrides = [f"{setting}={json.dumps(value)}" for setting, value in (changes or {}).items()]
    return parse_recipe(yaml.safe_dump(RECIPE), "toy", overrides)


def work(
    recipe,
    *,
    poison=(),
    poison_value=float("nan"),
    kill_at=None,
    signal_at=None,
    full_at=None,
    validations=None,
    words=None,
    **toy,
):
    """The toy's work. poison: (step, rank) pairs whose last micro-batch has a loss of `poison_value`. kill_at
    and signal_at: the step during which this process sends itself SIGKILL or SIGTERM. full_at: the step from
    which files cannot grow past 8,000 bytes, like on a full disk. validations: the values of itc/ir@1. words: of its
    training, as a list. toy: see `Toy`.
    """
    torch.manual_seed(0)
    task = Toy(**toy)
    micro = recipe.runtime.micro_batch
    world = collectives.world_size()
    rank = collectives.rank()
    poisoned = [tuple(pair) for pair in poison]

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
                is_last = first + micro * world >= GLOBAL_BATCH
                is_poisoned = (step, rank) in poisoned and is_last
                yield {
                    "x": x[rows],
                    "y": y[rows],
                    "poison": torch.tensor([poison_value if is_poisoned else 0.0]),
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

    values = iter(validations or [])

    def validate(task):
        return {"itc/ir@1": next(values)}

    return Work(
        task=task,
        batches=batches,
        steps=recipe.optim.steps,
        steps_per_epoch=4,
        validate=validate if validations else None,
        parameters=PARAMETERS,
        config={"model": {}, "task": {"name": "toy"}, "small_letters": words is not None},
        tokenizer=None,
        words=None if words is None else frozenset(words),
    )


def run(output, options, env, log):
    """One rank, in a process of its own; exits with the loop's code. `log` takes what it prints."""
    os.environ.update(env)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    init_from_env(always=True)
    torch.set_num_threads(1)
    settings = recipe(options["recipe"])
    try:
        toy = work(settings, **options["work"])
        code = train(settings, toy, Path(output), resume=options["resume"])
    except UserError as error:
        print(f"UserError: {error}", flush=True)
        code = 1
    if OPEN:
        print("the loader was left open, its workers running", flush=True)
        code = 99
    os._exit(code)
