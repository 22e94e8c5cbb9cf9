"""What a run would be: `--dry-run`."""

import os
import sys
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch

from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.weights import load_into, load_weights
from fiber_cli.config.recipe import Recipe
from fiber_cli.distributed.device import GIB, device, to_device
from fiber_cli.model.precision import allow_tf32, precision_context, settled
from fiber_cli.printing import show
from fiber_cli.tasks import declared
from fiber_cli.training.allowed import check_trainable
from fiber_cli.training.comparisons import batch_line, comparison_line
from fiber_cli.training.compilation import compilation
from fiber_cli.training.computing import prepare
from fiber_cli.training.continuing import check_continuation, with_batch_of_run
from fiber_cli.training.one_step import forward_backward, shown_step
from fiber_cli.training.run_folder import check_output, read_init_from
from fiber_cli.training.work import Work, count_parameters, work

FLOAT32_BYTES = 4
#: ZeRO stage → what AdamW keeps, in sizes of the weights: two moments, and from stage 1 on a copy of the weights, which
#: stage 3 does not need.
OPTIMIZER_SIZES = {0: 2, 1: 3, 2: 3, 3: 2}


def dry_run(recipe: Recipe, init_from: str | Path | None = None, *, continued: Path | None = None) -> None:
    """Print what a run of the recipe would be, and one batch forward and backward; nothing is written. continued: the
    folder of the run that would go on. Of several ranks only the first does anything. Raises UserError as `fit`
    does."""
    if int(os.environ.get("RANK", 0)):
        return
    world = int(os.environ.get("WORLD_SIZE", 1))
    asked = recipe
    if continued is not None and check_output(continued, resume=True):
        recipe = with_batch_of_run(recipe, continued, world)
        planned = work(recipe, continued, fresh=False)
        check_continuation(recipe, planned.steps, continued, world)
        load_into(planned.task, load_weights(resolve(continued, latest=True)))
    else:
        recipe = recipe.on_ranks(world)
        planned = work(recipe, init_from if continued is None else read_init_from(continued))
    check_trainable(recipe, planned.task, planned.steps, world)
    show(recipe.to_yaml())
    counts = count_parameters(planned.task)
    show("parameters:  " + "  ".join(f"{part} {count:,}" for part, count in counts.items()))
    memory = memory_in_words(counts["total"], recipe, world)
    show(f"memory per rank on {world} ranks, without activations:  {memory}")
    epochs = planned.steps / planned.steps_per_epoch
    show(f"steps: {planned.steps:,} of {recipe.runtime.global_batch} samples, {epochs:.2f} epochs")
    changed = batch_line(asked.runtime, recipe.runtime, world)
    if changed:
        show(changed)
    compared = comparison_line(planned.task, recipe.runtime, world)
    if compared:
        show(compared)
    compiling = compilation(recipe.runtime, device(), planned.steps).line
    if compiling:
        show(compiling)
    _one_batch(recipe, planned, world)


def _one_batch(recipe: Recipe, planned: Work, world: int) -> None:
    """A batch forward and backward, or two whose pairs meet, with its losses, time and memory."""
    runtime = recipe.runtime
    target = device()
    task = planned.task.to(target).train()
    prepare(task, runtime, compiled=False, any_size=declared(recipe.task.name).free_image_size)
    shown = shown_step(task, runtime, world)
    precision = settled(runtime.precision, target)
    allow_tf32(runtime.tf32)
    is_larger = shown.micro_batch > runtime.micro_batch
    reading = planned.batches(0, shown.micro_batch) if is_larger else planned.batches(0)
    with closing(reading):
        batches = list(islice(reading, shown.micro_steps))
    began = time.monotonic()
    on_device = (to_device(batch, target) for batch in batches)
    context = precision_context(precision, target)
    losses = forward_backward(task, on_device, shown.micro_steps, runtime.seed, context)
    values = "  ".join(f"{name} {value.item():.4f}" for name, value in losses.items())
    what = "one batch" if shown.micro_steps == 1 else f"{shown.micro_steps} batches, whose pairs meet,"
    why = f", as the {world} ranks' of {runtime.micro_batch} meet" if is_larger else ""
    show(f"{what} of {shown.micro_batch}{why}:  {values}")
    peak = _peak_memory(target)
    memory = "unknown" if peak is None else f"{peak / GIB:.2f} GiB"
    show(f"forward and backward took {time.monotonic() - began:.2f} s; peak memory {memory}")


def _peak_memory(device: torch.device) -> int | None:
    """Bytes of the GPU, or of the process where there is none; None where the system does not tell (Windows)."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_parts(parameters: int, recipe: Recipe, world: int) -> dict[str, float]:
    """GiB that float32 weights, gradients and AdamW take on one rank."""
    stage = recipe.runtime.zero_stage
    weights = FLOAT32_BYTES * parameters / GIB
    gib = {"weights": weights, "gradients": weights, "optimiser": weights * OPTIMIZER_SIZES[stage]}
    sharded_from = {"optimiser": 1, "gradients": 2, "weights": 3}
    for owner, first_stage in sharded_from.items():
        if stage >= first_stage:
            gib[owner] /= world
    if recipe.runtime.ema:
        gib["moving average"] = weights
    return gib


def memory_in_words(parameters: int, recipe: Recipe, world: int) -> str:
    """The same as a line."""
    gib = memory_parts(parameters, recipe, world)
    words = "  ".join(f"{owner} {amount:.2f}" for owner, amount in gib.items())
    where = " (optimiser on the CPU)" if recipe.runtime.offload == "cpu" else ""
    return f"{words} GiB{where}"
