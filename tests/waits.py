"""Finds where a pass keeps the host waiting for its GPU, without one: on tensors that have a device and no values."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

#: Stands for a GPU: what depends on values, such as `.item()` or a choice by a bool tensor, it refuses itself.
NO_VALUES = torch.device("meta")
#: Copies that may wait, with the number of the argument that says whether they do.
COPIES = {torch.ops.aten._to_copy.default: None, torch.ops.aten.copy_.default: 2}


class Waits(TorchDispatchMode):
    """AssertionError where a tensor is brought from one device to the other and the host waits for it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in COPIES:
            devices = {value.device.type for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)}
            if kwargs.get("device") is not None:
                devices.add(torch.device(kwargs["device"]).type)
            number = COPIES[func]
            no_waiting = kwargs.get("non_blocking", False)
            if number is not None and len(args) > number:
                no_waiting = args[number]
            assert len(devices) == 1 or no_waiting, f"{func} between {devices} waits"
        return func(*args, **kwargs)


def check_pass(task: nn.Module, batch: Mapping[str, Any]) -> None:
    """Forward and backward of a task in training, twice, as the first may make what is kept; an error where the second
    waits."""
    task = task.to(NO_VALUES).train()
    moved = {name: value.to(NO_VALUES) if torch.is_tensor(value) else value for name, value in batch.items()}
    # Autocast, which is switched off in places, does not know the device.
    with patch("torch.autocast", lambda *_, **__: nullcontext()):
        task(moved)["loss"].backward()
        with Waits():
            task(moved)["loss"].backward()
