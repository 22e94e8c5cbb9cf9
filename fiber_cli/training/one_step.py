"""So much of an optimiser step as one process needs to go through to show what a training takes: for `--dry-run` and
`fiber plan`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor

from fiber_cli.config.recipe import RuntimeSettings
from fiber_cli.data.readers import Batch
from fiber_cli.seeds import mix
from fiber_cli.tasks.base import Task

#: Micro-batches of a step whose pairs all meet, by cached gradients.
_MEETING = 2


class ShownStep(NamedTuple):
    """micro_steps: one, or where the pairs of all micro-batches meet two of them; micro_batch: the run's, or where a
    loss needs pairs that other ranks have as many as it needs."""

    micro_steps: int
    micro_batch: int


def shown_step(task: Task, runtime: RuntimeSettings, world: int) -> ShownStep:
    """What one process goes through of a step on `world` ranks."""
    meets_all = any(comparison.is_global for comparison in task.comparisons)
    micro_steps = min(_MEETING, runtime.micro_steps(world)) if meets_all else 1
    micro_batch = runtime.micro_batch
    least = max((comparison.least for comparison in task.comparisons), default=1)
    while micro_batch * micro_steps < least:
        micro_batch += 1
    return ShownStep(micro_steps, micro_batch)


def forward_backward(
    task: Task, batches: Iterator[Batch], micro_steps: int, seed: int, context: AbstractContextManager[object]
) -> dict[str, Tensor]:
    """The means of a task's outputs over the first micro-steps of a run, which leave gradients, with the chance that
    they have on the first of its ranks. context: in which all is computed, entered anew for every pass."""
    sums: dict[str, Tensor] = {}
    for each in task.passes(batches, micro_steps):
        streams = (each.stream,) if each.stream else ()
        torch.manual_seed(mix(seed, 0, each.micro_step, 1, *streams))
        batch = each.batch | {"seed": mix(seed, 0, each.micro_step), "step": 0}
        if each.compute is not None:
            batch["compute"] = each.compute
        with torch.set_grad_enabled(each.has_graph), context:
            outputs = task(batch)
        if each.has_graph:
            outputs["loss"].backward()
        for name, value in outputs.items():
            sums[name] = sums.get(name, torch.zeros(())) + value.detach()
    return {name: value / micro_steps for name, value in sums.items()}
