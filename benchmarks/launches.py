"""How many operations a training step gives to a GPU, one by one, and which of them; without a GPU.

    python -m benchmarks.launches                    # base: a coarse step of 2 pairs, a fine step of 2 images
    python -m benchmarks.launches --preset tiny --top 20

A step is forward and backward in bfloat16, the second of its kind, as what is kept is made in the first. Tensors have
shapes and no values (`benchmarks.fake_gpu`). Views are not counted; what is counted launches a kernel at least. Copies
between the host and the device are counted beside them.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.common import options, write
from benchmarks.coarse_step import collated, random_batch
from benchmarks.detect import fine_config
from benchmarks.fake_gpu import fake_gpu, placed
from benchmarks.steps import WAYS, fine_batch
from fiber_cli.config.recipe import RuntimeSettings
from fiber_cli.distributed.device import to_device
from fiber_cli.model.config import PRESETS
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.regions.task import RegionTask
from fiber_cli.training.computing import prepare

aten = torch.ops.aten
#: What neither is a view by its schema nor computes anything.
NO_LAUNCH = {
    aten._unsafe_view,
    aten._reshape_alias,
    aten.detach,
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.lift_fresh,
    aten.new_empty,
    aten.new_empty_strided,
    torch.ops.prim.device,
}
#: Bytes that the driver takes from any memory without waiting.
SMALL = 64 * 1024
COPIES = {aten._to_copy: None, aten.copy_: 2}
READS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.bincount}


class WaitError(AssertionError):
    """The host waits until the device has done all that it was given."""


class Launches(TorchDispatchMode):
    """What is given to the fake GPU. counts: operation → how often; copies: those between host and device, with their
    bytes. waits: what the host would wait for; an error at once where they are `refused`."""

    def __init__(self, *, refused: bool = False):
        super().__init__()
        self.refused = refused
        self.counts: Counter[str] = Counter()
        self.copies: list[tuple[str, int]] = []
        self.waits: list[str] = []

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        given = {tensor.device.type for tensor in _tensors((args, kwargs))}
        if "cuda" in given and packet in READS:
            self._wait(f"{func} of what is on the device")
        result = func(*args, **kwargs)
        made = {tensor.device.type for tensor in _tensors(result)}
        if packet in COPIES and len(given | made) > 1:
            self._copy(func, args, kwargs, result)
        elif "cuda" in given and "cpu" in given and any(tensor.ndim for tensor in _tensors((args, kwargs)) if tensor.device.type == "cpu"):
            self._wait(f"{func} of what is on the device and on the host")
        if "cuda" in given | made and not _launches_nothing(func):
            self.counts[str(func)] += 1
        return result

    def _copy(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> None:
        number = COPIES[func.overloadpacket]
        no_waiting = kwargs.get("non_blocking", False)
        if number is not None and len(args) > number:
            no_waiting = args[number]
        size = result.numel() * result.element_size()
        self.copies.append((f"to {result.device.type}", size))
        if not no_waiting or result.device.type == "cpu" or size > SMALL:
            self._wait(f"{func} of {size} bytes to {result.device}, non_blocking={no_waiting}")

    def _wait(self, what: str) -> None:
        if self.refused:
            raise WaitError(what)
        self.waits.append(what)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _launches_nothing(func: Any) -> bool:
    if func.overloadpacket in NO_LAUNCH:
        return True
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)
