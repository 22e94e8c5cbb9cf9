"""Sizes, weights and batches of tasks on fused pairs that take milliseconds."""

from typing import Any, TypeVar

import torch
from torch import nn

from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig

CONFIG = FiberConfig(
    image=ImageConfig(embed_dim=8, depths=(1, 2), heads=(1, 2), window=2, patch=8, drop_path=0.0),
    text=TextConfig(layers=3, hidden=16, heads=2, intermediate=32, vocab=40, positions=30, dropout=0.0),
    fusion_layers=2,
    hidden=12,
    image_size=(32, 32),
    init_std=None,
)

Module = TypeVar("Module", bound=nn.Module)


def shaken(task: Module) -> Module:
    """Far from its start: the gates are open."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return task


def pair_batch(images: int | None = None, **targets: torch.Tensor) -> dict[str, Any]:
    """Three texts of different lengths, each with one picture, or with a row of `images`."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.tensor([[True] * 8, [True] * 5 + [False] * 3, [True] * 3 + [False] * 5])
    shape = (3, 3, 32, 32) if images is None else (3, images, 3, 32, 32)
    return {
        "pixels": torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        "ids": torch.randint(4, 40, (3, 8), generator=generator).masked_fill(~mask, 1),
        "mask": mask,
        **targets,
    }
