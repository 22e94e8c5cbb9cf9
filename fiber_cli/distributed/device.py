"""Where tensors are computed."""

import os
from typing import Any

import torch

from fiber_cli.errors import UserError

#: Bytes.
GIB = 2**30


def local_rank() -> int:
    """This process's number on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def device() -> torch.device:
    """This process's GPU, or the CPU where there is none: where ranks train and talk to one another."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank())
    return torch.device("cpu")


def prediction_device() -> torch.device:
    """Where a trained task predicts: what FIBER_DEVICE names, this process's GPU, Apple's (mps), or the CPU. UserError
    where FIBER_DEVICE names none of this machine."""
    named = os.environ.get("FIBER_DEVICE")
    if named:
        return device_named(named)
    here = device()
    if here.type == "cpu" and torch.backends.mps.is_available():
        return torch.device("mps")
    return here


def device_named(name: str | torch.device) -> torch.device:
    """A device by its name, such as "cuda:1" or "mps"; "cuda" alone is this process's GPU. UserError where this machine
    has none of it."""
    try:
        named = torch.device(name)
        if named == torch.device("cuda"):
            named = torch.device("cuda", local_rank())
        torch.empty(0, device=named)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {str(name)!r} cannot be used ({reason}); give cpu, cuda, cuda:1 … or mps") from None
    return named


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on the device."""
    moved = {}
    for name, value in batch.items():
        moved[name] = value.to(device, non_blocking=True) if torch.is_tensor(value) else value
    return moved
