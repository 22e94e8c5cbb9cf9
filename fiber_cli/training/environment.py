"""Hardware and versions."""

import platform
from typing import Any

import torch

import fiber_cli
from fiber_cli.distributed.collectives import world_size
from fiber_cli.distributed.device import device, in_words


def versions() -> dict[str, str]:
    """Of the program and of what decides its numbers, which are the same on all ranks."""
    return {"the version of fiber": fiber_cli.__version__, "the version of torch": torch.__version__}


def environment() -> dict[str, Any]:
    """What a run's summary says of where it ran."""
    return {
        "ranks": world_size(),
        **in_words(device()),
        "threads_per_rank": torch.get_num_threads(),
        "fiber": fiber_cli.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
