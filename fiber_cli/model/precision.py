"""In what precision a network computes: the one place that decides, and makes the network so.

Parameters are float32 in files and in training. A network that only predicts may keep narrower ones: under autocast the
products are the same, and the weights are not rounded anew in every pass, of a caption at every token.
"""

import copy
from contextlib import AbstractContextManager
from typing import TypeVar, get_args

import torch
from torch import nn

from fiber_cli.errors import UserError
from fiber_cli.model.int8 import with_int8
from fiber_cli.placement import Precision

Network = TypeVar("Network", bound=nn.Module)
#: Precision → the type that autocast computes in.
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS: tuple[str, ...] = get_args(Precision)


def settled(precision: str, device: torch.device) -> str:
    """What is computed in on a device: "auto" is bf16 on GPUs that have it, else fp32. UserError for a precision that
    there is not, or not on that device."""
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r}: give one of {', '.join(PRECISIONS)}")
    if precision == "int8" and device.type != "cpu":
        raise UserError(f"precision int8 is for CPUs, this is {device.type}: give bf16, or cpu as the device")
    if precision == "int8" and not torch.backends.mkldnn.is_available():
        raise UserError("precision int8 is computed by oneDNN, which this PyTorch does not have: give bf16 or fp32")
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and _has_bfloat16(device) else "fp32"


def arithmetic(precision: str) -> str:
    """What results of a precision are kept under: another way to compute them has another name. Of int8 the ranges of
    inputs are those of single rows."""
    return "int8r" if precision == "int8" else precision


def _has_bfloat16(device: torch.device) -> bool:
    """Whether a GPU has it by itself: AMD's, and NVIDIA's from Ampere on. On older ones PyTorch emulates it, which is
    slower than float32."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def allow_tf32(allowed: bool | None) -> None:
    """TensorFloat-32 in the float32 products and convolutions of this process, or in none; None: as it is."""
    if allowed is not None:
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


def precision_context(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Autocast for "bf16" and "fp16", none for "fp32" and "int8"."""
    return torch.autocast(device.type, dtype=AUTOCAST.get(precision), enabled=precision in AUTOCAST)


def prepared(network: Network, precision: str, device: torch.device) -> Network:
    """A network that predicts on a device under `precision_context`: itself in fp32, else a copy, whose linear layers
    and convolutions have weights of bf16 or fp16, or whose linear layers multiply in int8; the rest is float32.
    precision: a settled one."""
    if precision == "fp32":
        return network.to(device)
    copied = _with_tensors_of_its_own(network)
    if precision == "int8":
        with_int8(copied)
        return copied
    for module in copied.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(AUTOCAST[precision])
    return copied.to(device)


def _with_tensors_of_its_own(network: Network) -> Network:
    """A copy that shares the memory of the weights until it gets others."""
    memo: dict[int, object] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.detach()
    return copy.deepcopy(network, memo).eval()
