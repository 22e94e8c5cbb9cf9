"""`fiber plan` in words: what is estimated, with what it is estimated by."""

from collections.abc import Iterator

from fiber_cli.config.recipe import Recipe
from fiber_cli.distributed.device import GIB
from fiber_cli.training.comparisons import batch_line
from fiber_cli.training.estimate import Estimate, estimate, planned_precision
from fiber_cli.training.gpus import BOXES_SHARE, OVERHEAD, Gpu
from fiber_cli.training.plan import FLOAT32_BYTES, memory_in_words, memory_parts
from fiber_cli.training.samples import Length, length_of

#: GiB of a process that has loaded the program and its libraries.
PROGRAM = 0.8
_TERA = 1e12
_SECONDS_AN_HOUR = 3600
_HOURS_A_DAY = 24


def forecast(recipe: Recipe, gpu: Gpu, world: int, share: float | None) -> Iterator[str]:
    """The lines of a plan. share: of the GPU's rate, None for what such trainings are taken to reach. Raises UserError
    as `estimate` does."""
    asked, recipe = recipe, recipe.on_ranks(world)
    length = length_of(recipe)
    estimated = estimate(recipe, world, length.steps)
    total = estimated.parameters["total"]
    yield f"recipe:      {recipe.name} on {world} x {gpu.title}"
    changed = batch_line(asked.runtime, recipe.runtime, world)
    if changed:
        yield f"batch:       {changed}"
    yield "parameters:  " + "  ".join(f"{part} {count:,}" for part, count in estimated.parameters.items())
    yield f"memory per rank on {world} ranks, without activations:  {memory_in_words(total, recipe, world)}"
    yield from _memory(recipe, estimated, gpu, world)
    yield from _time(recipe, estimated, length, gpu, world, share)
    for note in estimated.notes:
        yield f"taken for granted: {note}"
    yield "taken for granted: texts of model.text_length tokens, else as those of the built-in scenes"


def _memory(recipe: Recipe, estimated: Estimate, gpu: Gpu, world: int) -> Iterator[str]:
    runtime = recipe.runtime
    activations = estimated.passes.activations / GIB
    again = ", computed again in the backward pass" if runtime.activation_checkpointing else ""
    what = f"a micro-batch of {runtime.micro_batch}, {planned_precision(recipe)}"
    if estimated.passes.meeting > 1:
        what += f", and of what cached gradients keep of all {estimated.passes.meeting}"
    yield f"activations: {activations:.2f} GiB of {what}{again}"
    total = estimated.parameters["total"]
    whole = 2 * FLOAT32_BYTES * total / GIB + activations + PROGRAM
    yield f"--dry-run:   about {whole:.1f} GiB on a CPU: weights, gradients, activations and the program"
    parts = memory_parts(total, recipe, world)
    if runtime.offload == "cpu":
        parts.pop("optimiser")
    needed = sum(parts.values()) + activations + OVERHEAD
    verdict = "fits" if needed <= gpu.gib else "does not fit: lower runtime.micro_batch"
    if needed > gpu.gib and not runtime.activation_checkpointing:
        verdict += ", or set runtime.activation_checkpointing=true"
    yield f"memory:      about {needed:.1f} of {gpu.gib} GiB a GPU, {OVERHEAD:.0f} for CUDA itself: {verdict}"


def _share(estimated: Estimate, gpu: Gpu, share: float | None) -> float:
    """Of the GPU's rate: what is asked for, what was measured on it, or what such trainings are taken to reach."""
    if share is not None:
        return share
    if gpu.measured is None:
        return estimated.share
    return gpu.measured.boxes if estimated.share == BOXES_SHARE else gpu.measured.pairs


def _time(
    recipe: Recipe, estimated: Estimate, length: Length, gpu: Gpu, world: int, share: float | None
) -> Iterator[str]:
    tera = estimated.passes.operations / _TERA
    yield f"operations:  {tera:.3f} TFLOP a sample, forward and backward"
    if length.samples is None:
        rate = gpu.rate * _share(estimated, gpu, share)
        yield f"samples:     not known without the data ({length.basis})"
        yield f"time:        about {1e6 * tera / rate / _SECONDS_AN_HOUR:,.1f} GPU-hours a million samples"
    else:
        batch = recipe.runtime.global_batch
        yield f"samples:     {length.samples:,} in {length.steps:,} steps of {batch:,} ({length.basis})"
        hours = length.samples * tera / (gpu.rate * _share(estimated, gpu, share)) / _SECONDS_AN_HOUR
        yield f"time:        {_duration(hours)} GPU-hours, {_duration(hours / world)} hours on {world}"
    yield f"assumption:  {_assumption(estimated, gpu, share)}"


def _duration(hours: float) -> str:
    if hours < 0.1:
        return "under 0.1"
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}"


def _assumption(estimated: Estimate, gpu: Gpu, share: float | None) -> str:
    rate = f"of the {gpu.rate:g} TFLOPS that its maker states for the {gpu.title}"
    if share is not None:
        return f"{share:.0%} {rate} are reached, as --share says; reading data holds nothing up"
    if gpu.measured is not None:
        return f"{_share(estimated, gpu, None):.1%} {rate} are reached, as `python -m benchmarks.gpu` measured on it"
    if estimated.share == BOXES_SHARE:
        return (
            f"{BOXES_SHARE:.0%} {rate} are reached, as on the V100s of the paper's Table 2 with boxes; not measured on "
            "this GPU, --share sets it"
        )
    return f"{estimated.share:.0%} {rate} are reached, as large batches do; not measured on this GPU, --share sets it"
