"""What a pass of a network would take, counted without computing it.

Inside `Counting` an operation on the network's weights, or on anything that came from them, is not computed: what it
gives has the right shape and memory that nothing has touched, which reads as zeros and costs the machine next to
nothing. All else runs as it is, so that a task's own code, with its drawing, masks and assignments, goes its way.
"""

import mmap
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map, tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten
#: What has the memory of its input although its schema does not say so.
_SAME_MEMORY = (aten._unsafe_view.default,)
_ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu
_ATTENTION_BACKWARD = aten._scaled_dot_product_flash_attention_for_cpu_backward


class Shaped(NamedTuple):
    """What an operation gives: result without memory, and its floating-point operations."""

    result: Any
    operations: int


class Counting(TorchDispatchMode):
    """weights: the parameters of the network, none of which is read or changed.

    operations: floating-point operations of matrix products, convolutions and attention so far, a multiplication and
    an addition as two. peak: the most bytes that what was computed from the weights took at a time.
    """

    def __init__(self, weights: Iterable[Tensor]):
        super().__init__()
        self.operations = 0
        self.peak = 0
        self._live = 0
        #: What operations give by their signatures: the layers of a network are alike.
        self._known: dict[Hashable, Shaped | None] = {}
        #: Addresses of the memory of the weights and of what came from them.
        self._derived = {weight.untyped_storage().data_ptr() for weight in weights}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _shares_memory(func) or not self._is_derived(args, kwargs):
            return func(*args, **kwargs)
        if func._schema.is_mutable:
            return kwargs.get("out", args[0])
        asked = _signature((func, args, tuple(kwargs.items())))
        if asked not in self._known:
            self._known[asked] = _shaped(func, args, kwargs)
        known = self._known[asked]
        if known is None:
            result = func(*args, **kwargs)
            self.operations += _operations(func, args, kwargs, result)
            return result
        self.operations += known.operations
        return tree_map_only(Tensor, self._untouched, known.result)

    def _is_derived(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        for value in (*args, *kwargs.values()):
            items = value if isinstance(value, list | tuple) else (value,)
            for item in items:
                if isinstance(item, Tensor) and item.untyped_storage().data_ptr() in self._derived:
                    return True
        return False

    def _untouched(self, shape: Tensor) -> Tensor:
        """Zeros of the shape and layout of a tensor without memory."""
        size = shape.untyped_storage().nbytes()
        memory = _zeros(size)
        storage = torch.from_numpy(memory).untyped_storage()
        if size:
            address = storage.data_ptr()
            self._derived.add(address)
            self._live += size
            self.peak = max(self.peak, self._live)
            weakref.finalize(memory, self._forget, address, size)
        tensor = torch.empty(0, dtype=shape.dtype)
        return tensor.set_(storage, 0, shape.size(), shape.stride())

    def _forget(self, address: int, size: int) -> None:
        self._derived.discard(address)
        self._live -= size


def _zeros(size: int) -> "np.ndarray[Any, Any]":
    """So many bytes; of many the machine gives none before one of them is changed."""
    if size < mmap.PAGESIZE:
        return np.zeros(size, np.uint8)
    return np.frombuffer(mmap.mmap(-1, size), np.uint8)


def _signature(value: Any) -> Hashable:
    """What decides the shapes of what an operation gives, of the operation or of an argument."""
    if isinstance(value, Tensor):
        return value.dtype, value.size(), value.stride()
    if isinstance(value, list | tuple):
        return tuple(map(_signature, value))
    return type(value), value  # 1, 1.0 and True are equal


def _shaped(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shaped | None:
    """What the operation gives; None where its shape depends on values."""
    shapes = tree_map_only(Tensor, _shape, (args, kwargs))
    shapes = tree_map(_on_meta, shapes)
    try:
        result = func(*shapes[0], **shapes[1])
    except (NotImplementedError, RuntimeError):
        return None
    return Shaped(result, _operations(func, args, kwargs, result))


@cache
def _shares_memory(func: Any) -> bool:
    """Whether an operation gives a view of its input."""
    if func in _SAME_MEMORY:
        return True
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _shape(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")


def _on_meta(value: Any) -> Any:
    return torch.device("meta") if isinstance(value, torch.device) else value


def _operations(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    packet = func.overloadpacket
    if packet is _ATTENTION:
        query, key, value = args[:3]
        return int(sdpa_flop_count(query.shape, key.shape, value.shape))
    if packet is _ATTENTION_BACKWARD:
        gradient, query, key, value = args[:4]
        return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))
    count: Callable[..., int] | None = flop_registry.get(packet)
    return 0 if count is None else int(count(*args, **kwargs, out_val=result))


class Undrawn(TorchDispatchMode):
    """Inside, a network is made without drawing or filling its large tensors, whose values are then anything."""

    LARGE = 4096

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func._schema.is_mutable and self._is_large(args[0]):
            return args[0]
        return func(*args, **(kwargs or {}))

    def _is_large(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.is_floating_point() and value.numel() > self.LARGE
