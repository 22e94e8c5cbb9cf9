"""What a device reaches of its own measured rate: the operations of a training beside a matrix product."""

import time

import torch

from fiber_cli.config.recipe import Recipe
from fiber_cli.distributed.collectives import is_main, world_size
from fiber_cli.distributed.device import device
from fiber_cli.model.linear import linear
from fiber_cli.model.precision import settled
from fiber_cli.training.estimate import estimate

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Rows and columns of the matrices: large enough for the rate, small enough for a moment.
SIDE_OF_GPU, SIDE_OF_CPU = 8192, 768
REPEATS = 10


def measured_rate(target: torch.device, precision: str) -> float:
    """Floating-point operations a second of matrix products on a device, the best of `REPEATS`."""
    side = SIDE_OF_GPU if target.type == "cuda" else SIDE_OF_CPU
    # Values that are drawn: zeros take less power, and are faster than what a network computes.
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(side, side, generator=generator).to(target, TYPES[precision])
    best = float("inf")
    for _ in range(REPEATS + 1):
        _wait(target)
        began = time.perf_counter()
        with torch.no_grad():
            linear(matrix, matrix, None)
        _wait(target)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _wait(target: torch.device) -> None:
    if target.type == "cuda":
        torch.cuda.synchronize(target)


def share_of_an_image(recipe: Recipe) -> float | None:
    """The percentage of the measured rate of all ranks' devices that one image a second takes; None where
    `log.device_share` leaves it out, and on all ranks but the first, which writes the log."""
    target = device()
    wanted = target.type == "cuda" if recipe.log.device_share is None else recipe.log.device_share
    if not wanted or not is_main():
        return None
    rate = measured_rate(target, settled(recipe.runtime.precision, target))
    return 100 * estimate(recipe, world_size()).passes.operations / (rate * world_size())
