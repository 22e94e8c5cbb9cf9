"""Where tensors are computed."""

import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from fiber_cli.errors import UserError
from fiber_cli.placement import DEVICE_VARIABLE

#: Bytes.
GIB = 2**30
#: Characters of what PyTorch says of a device.
LONGEST_REASON = 160
_NAMES = "cpu, cuda, cuda:1 … or mps"


def local_rank() -> int:
    """This process's number on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def device() -> torch.device:
    """This process's GPU, or the CPU where there is none: where ranks train and talk to one another."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank())
    return torch.device("cpu")


def in_words(where: torch.device) -> dict[str, str]:
    """What results and summaries say of where was computed: "device", its kind, such as "cpu" or "cuda"; "hardware",
    the name of the GPU or the processor, where the system tells it."""
    hardware = torch.cuda.get_device_name(where) if where.type == "cuda" else processor_name()
    return {"device": where.type, "hardware": hardware}


@cache
def processor_name() -> str:
    """The processor's model, else its kind, such as "x86_64"."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, model = line.partition(":")
            if name.strip() == "model name" and model.strip():
                return model.strip()
    return platform.processor() or platform.machine()


def prediction_device() -> torch.device:
    """Where a trained task predicts: what FIBER_DEVICE names, this process's GPU, Apple's (mps), or the CPU. UserError
    where FIBER_DEVICE names none of this machine."""
    named = os.environ.get(DEVICE_VARIABLE)
    if named:
        return _device_of(named, f"{DEVICE_VARIABLE}={named}")
    here = device()
    if here.type == "cpu" and torch.backends.mps.is_available():
        return torch.device("mps")
    return here


def device_named(name: str | torch.device) -> torch.device:
    """A device by its name, such as "cuda:1" or "mps"; "cuda" alone is this process's GPU. UserError where this machine
    has none of it."""
    return _device_of(name, f"device {str(name)!r}")


def _device_of(name: str | torch.device, named_as: str) -> torch.device:
    try:
        named = torch.device(name)
    except RuntimeError:  # which lists all that PyTorch was ever built for
        raise UserError(f"{named_as} cannot be used (there is none of that name); give {_NAMES}") from None
    try:
        if named == torch.device("cuda"):
            named = torch.device("cuda", local_rank())
        reason = _lack(named)
        if reason is None:
            torch.empty(0, device=named)
            return named
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # PyTorch goes on with all that it was built with.
        reason = shorten(str(error).splitlines()[0], LONGEST_REASON, placeholder=" …")
    raise UserError(f"{named_as} cannot be used ({reason}); give {_NAMES}")


def _lack(named: torch.device) -> str | None:
    """Why nothing can be computed there, None where something may be."""
    if named.type == "meta":
        return "tensors have no values there"
    if named.type == "cpu" and named.index:
        return "all processors are one device, cpu"
    if named.type == "cuda" and not torch.cuda.is_available():
        return "this machine has no GPU that PyTorch can use"
    if named.type == "mps" and not torch.backends.mps.is_available():
        return "this machine has no GPU of Apple's that PyTorch can use"
    return None


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on the device."""
    moved = {}
    for name, value in batch.items():
        moved[name] = value.to(device, non_blocking=True) if torch.is_tensor(value) else value
    return moved
