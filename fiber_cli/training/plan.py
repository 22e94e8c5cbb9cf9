"""What a run would be: `--dry-run`."""

import os
import resource
import time
from pathlib import Path

import torch

from fiber_cli.training import work as build
from fiber_cli.distributed import collectives as dist
from fiber_cli.tasks.prediction import precision_context, to_device
from fiber_cli.seeds import mix
from fiber_cli.config.settings import Recipe


def dry_run(recipe: Recipe, init_from: str | Path | None = None) -> None:
    """Print what a run of the recipe would be, and one batch forward and backward; nothing is written. Of
    several ranks only the first does anything. Raises UserError as `fit` does."""
    world, settings = int(os.environ.get("WORLD_SIZE", 1)), recipe.runtime
    settings.micro_steps(world)  # checked before anything is read
    if int(os.environ.get("RANK", 0)):
        return
    work = build.work(recipe, init_from)
    print(recipe.to_yaml())
    counts = build.count_parameters(work.task)
    print("parameters:  " + "  ".join(f"{part} {count:,}" for part, count in counts.items()))
    print(f"memory per rank on {world} ranks, without activations:  " + _memory(counts["total"], recipe, world))
    epochs = work.steps / work.steps_per_epoch
    print(f"steps: {work.steps:,} of {settings.global_batch} samples, {epochs:.2f} epochs")
    device = dist.device()
    task, batch = work.task.to(device).train(), next(iter(work.batches(0)))
    if settings.activation_checkpointing:
        task.encoder.checkpoint_activations = True
    began = time.monotonic()
    with precision_context(settings.precision, device):
        losses = task(to_device(batch, device) | {"seed": mix(settings.seed, 0, 0), "step": 0})
    losses["loss"].backward()
    print(f"one batch of {settings.micro_batch}:  " + "  ".join(f"{k} {v.item():.4f}" for k, v in losses.items()))
    if device.type == "cuda":
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"forward and backward took {time.monotonic() - began:.2f} s; peak memory {peak / 2**30:.2f} GiB")


def _memory(parameters: int, recipe: Recipe, world: int) -> str:
    """What float32 weights, gradients and AdamW take on one rank; from ZeRO 1 on the optimiser keeps a copy
    of its share of the weights beside the two moments, which stage 3 does not need."""
    stage, unit = recipe.runtime.zero_stage, 4 * parameters / 2**30
    parts = {
        "weights": unit / (world if stage == 3 else 1),
        "gradients": unit / (world if stage >= 2 else 1),
        "optimiser": unit * (3 if stage in (1, 2) else 2) / (world if stage else 1),
        "moving average": unit if recipe.runtime.ema else 0.0,
    }
    where = " (optimiser on the CPU)" if recipe.runtime.offload == "cpu" else ""
    return "  ".join(f"{part} {gib:.2f}" for part, gib in parts.items() if gib) + " GiB" + where
