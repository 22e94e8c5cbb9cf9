"""Where tensors are computed, and in what precision."""

import os
from typing import Any

import torch

#: Bytes.
GIB = 2**30
#: Precision of a recipe → the type that autocast computes in.
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def local_rank() -> int:
    """This process's number on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def device() -> torch.device:
    """This process's GPU, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank())
    return torch.device("cpu")


def precision_context(precision: str, device: torch.device) -> torch.autocast:
    """Autocast for "bf16" and "fp16", nothing for "fp32"."""
    return torch.autocast(device.type, dtype=AUTOCAST.get(precision), enabled=precision in AUTOCAST)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on the device."""
    moved = {}
    for name, value in batch.items():
        moved[name] = value.to(device, non_blocking=True) if torch.is_tensor(value) else value
    return moved
