"""Training steps of the coarse and the fine stage: seconds, memory, share of the machine's rate."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.coarse_step import collated, count_operations, random_batch
from benchmarks.detect import fine_config
from benchmarks.measured import Report, Scale, autocast, median_seconds, peak_gib
from fiber_cli.config.recipe import RuntimeSettings
from fiber_cli.distributed.device import to_device
from fiber_cli.model.config import PRESETS, FiberConfig
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.regions.task import RegionTask
from fiber_cli.training.computing import prepare

#: Boxes of an image in the fine stage, about as many as its data sets have.
BOXES = 8
#: Tokens of its texts.
LENGTH = 64
#: Name → settings of the recipe's section `runtime`.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "recomputing": {"activation_checkpointing": True},
    "norms in bf16": {"norms": "low"},
    "deformable in bf16": {"deformable": "low"},
    "channels last": {"channels_last": True},
    "compiled": {"compile": True},
    "compiled with norms in bf16": {"compile": True, "norms": "low"},
}
#: Of the detector alone.
OF_DETECTORS = ("deformable in bf16", "channels last")


class Step:
    """One training step of a task on one batch."""

    def __init__(self, make: Callable[[], Task], batch: dict[str, Any], device: torch.device):
        with device:
            self.task = make().to(device).train()
        self.batch = to_device(batch, device)
        self.device = device
        self.optimizer = torch.optim.AdamW(self.task.parameters(), lr=1e-6, fused=device.type == "cuda")

    def __call__(self) -> None:
        with autocast("bf16", self.device):
            loss = self.task(self.batch)["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def step_row(
    make: Callable[[], Task],
    batch: dict[str, Any],
    device: torch.device,
    repeats: int,
    flop: float,
    rate: float,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Seconds, images a second, memory and the share of the matmul rate of a step in bfloat16. flop: of an image,
    forward and backward, nothing computed twice; settings: of `runtime`."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    step = Step(make, batch, device)
    images = len(batch["pixels"])
    runtime = RuntimeSettings(**{"micro_batch": images, "global_batch": images, **settings})
    prepare(step.task, runtime, compiled=runtime.compile is True, any_size=False)
    seconds = median_seconds(step, device, repeats)
    return {
        "seconds": seconds,
        "images_per_second": images / seconds,
        "peak_gib": peak_gib(device),
        "of_matmul_rate": images * flop / seconds / rate,
    }


def flop_of_step(make: Callable[[], Task], batch: dict[str, Any], device: torch.device) -> float:
    """Operations of a step, of each of its images."""
    step = Step(make, batch, device)
    flop = count_operations(step)
    return flop / len(batch["pixels"])


def coarse_batch(config: FiberConfig, images: int) -> dict[str, Any]:
    """A batch of the coarse stage, of random pairs."""
    return collated(random_batch(config, images))


def fine_batch(config: FiberConfig, size: tuple[int, int], images: int, length: int = LENGTH) -> dict[str, Any]:
    """A batch of the fine stage: random pixels, tokens and boxes, each named by two tokens."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(images * BOXES, 2, generator=generator) * torch.tensor([width, height]) * 0.7
    sides = (0.05 + 0.2 * torch.rand(images * BOXES, 2, generator=generator)) * torch.tensor([width, height])
    positive_map = torch.zeros(images * BOXES, length)
    first = torch.arange(images * BOXES) % (length // 2 - 2) * 2 + 1
    positive_map[torch.arange(images * BOXES), first] = 0.5
    positive_map[torch.arange(images * BOXES), first + 1] = 0.5
    return {
        "pixels": torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8, generator=generator),
        "sizes": torch.tensor([[height, width]] * images),
        "ids": torch.randint(5, config.text.vocab - 1, (images, length), generator=generator),
        "mask": torch.ones(images, length, dtype=torch.bool),
        "boxes": torch.cat([corners, corners + sides], 1),
        "positive_map": positive_map,
        "box_counts": [BOXES] * images,
    }


def step_rows(report: Report, scale: Scale, device: torch.device, rate: float, stage: str, ways: Sequence[str]) -> None:
    """Rows of a stage, "coarse" or "fine": plain at every batch, in the other `ways` at the largest. rate: of products
    in bfloat16, operations a second."""
    if stage == "coarse":
        coarse_config = PRESETS[scale.preset]
        make: Callable[[], Task] = partial(CoarseTask, coarse_config)
        batch_of: Callable[[int], dict[str, Any]] = partial(coarse_batch, coarse_config)
        batches = scale.coarse_batches
    else:
        vocab = PRESETS[scale.preset].text.vocab
        config = fine_config(scale.preset, vocab, drop_path=0.4)
        make = partial(RegionTask, config)
        batch_of = partial(fine_batch, config, scale.image)
        batches = scale.fine_batches
    flop = flop_of_step(make, batch_of(2), device)
    print(f"{stage} step: {flop / 1e12:.3f} TFLOP an image", flush=True)
    for images in batches:
        for name in ways:
            if name != "plain" and images != max(batches):
                continue
            if name in OF_DETECTORS and stage == "coarse":
                continue
            measure = partial(step_row, make, batch_of(images), device, scale.repeats, flop, rate, WAYS[name])
            report.row(f"{stage} step, bf16, {images} images, {name}", measure)
