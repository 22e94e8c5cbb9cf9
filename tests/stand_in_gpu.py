"""A stand-in for a GPU: tensors that say that they lie on "cuda" and whose values are computed on the host.

What mixes devices where a GPU refuses it is an error, and everything that depends on values runs, so that a task's
results can be held against those on the CPU. `benchmarks.fake_gpu` has its counterpart without values, which refuses
what waits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torchvision  # noqa: F401, whose operators are to be known
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.fake_gpu import DEVICE, autograd_and_autocast, cast_for_attention

aten = torch.ops.aten
#: Between devices.
COPIES = {aten._to_copy, aten.copy_}
#: With numbers that may lie on the host.
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class OnGpu(Tensor):
    """A tensor whose `values` lie on the host."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "OnGpu":
        tensor = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=DEVICE,
        )
        tensor.values = values
        return tensor

    def __init__(self, values: Tensor):
        super().__init__()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnGpu({self.values})"

    def tolist(self) -> Any:
        return self.values.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """For what makes tensors of none; PyTorch asks no GPU of the machine inside a mode of this key."""

    def __init__(self) -> None:
        super().__init__()
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE

    @classmethod
    def is_infra_mode(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


def dispatched(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation, computed on the host; AssertionError where a GPU would refuse it."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    is_on_gpu = any(isinstance(tensor, OnGpu) for tensor in given)
    packet = func.overloadpacket
    if is_on_gpu and packet not in COPIES and packet not in INDEXED:
        on_host = [tensor for tensor in given if not isinstance(tensor, OnGpu) and tensor.ndim]
        assert not on_host, f"{func} of tensors on the device and of {[tuple(tensor.shape) for tensor in on_host]}"
    if packet in INDEXED:
        assert is_on_gpu == isinstance(args[0], OnGpu), f"{func} of a tensor on the host by numbers on the device"
    is_result_on_gpu = isinstance(args[0], OnGpu) if packet is aten.copy_ else is_on_gpu
    if kwargs.get("device") is not None:
        is_result_on_gpu = torch.device(kwargs["device"]).type == "cuda"
        kwargs = kwargs | {"device": torch.device("cpu")}
    originals = {id(tensor.values): tensor for tensor in given if isinstance(tensor, OnGpu)}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in originals:
            return originals[id(value)]
        return OnGpu(value) if is_result_on_gpu else value

    values, options = tree_map(_values, (args, kwargs))
    with torch._C._DisableTorchDispatch():
        results = func(*values, **options)
    return tree_map(wrapped, results)


def _values(value: Any) -> Any:
    return value.values if isinstance(value, OnGpu) else value


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """The module with its weights on the stand-in, in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                on_gpu = torch.nn.Parameter(OnGpu(parameter.detach().clone()), parameter.requires_grad)
                part._parameters[name] = on_gpu
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnGpu(buffer.clone())
    return module


def on_host(results: Any) -> Any:
    """Any results with their tensors on the host."""
    return tree_map(lambda value: value.detach().values if isinstance(value, OnGpu) else value, results)


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    """F.scaled_dot_product_attention by separate operations, for which PyTorch asks no GPU."""
    query, key, value, attn_mask = cast_for_attention(query, key, value, attn_mask)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -torch.inf)
    return torch._scaled_dot_product_attention_math(query, key, value, attn_mask, dropout_p, is_causal)[0]


@contextmanager
def stand_in_gpu() -> Iterator[torch.device]:
    """Inside, tensors on the device can be made and computed, and gone back from."""
    torch._C._ensureCUDADeviceGuardSet()
    lifted_before = torch._C._only_lift_cpu_tensors()
    # torch.tensor makes its values on the host first.
    torch._C._set_only_lift_cpu_tensors(True)
    attention = patch("torch.nn.functional.scaled_dot_product_attention", plain_attention)
    try:
        with autograd_and_autocast(), attention, _Mode():
            yield DEVICE
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted_before)
