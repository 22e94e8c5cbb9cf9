"""Networks that are made without weights, because a file has all of them.

Fresh weights are the larger part of making a network, and all of its memory. Here parameters are on the device "meta",
where they take neither memory nor time; what a module computes for itself and no file holds, such as the indices of
relative positions or a queue, is computed as ever.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from fiber_cli.checkpoints.weights import compare, named_weights

#: Numbers in a tensor; larger ones are on "meta" while it is unknown whether their size is the file's.
_LARGE = 1 << 24
_MAKERS = frozenset((torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn))
#: What fills a tensor with random numbers; those that nn.init has for it come before the tensor's own.
_FILLERS = frozenset(
    (
        *(Tensor.normal_, Tensor.uniform_, Tensor.bernoulli_, Tensor.exponential_, Tensor.random_),
        *(init.normal_, init.uniform_, init.constant_, init.kaiming_uniform_),
    )
)

ModuleType = TypeVar("ModuleType", bound=nn.Module)


def filled(make: Callable[[], ModuleType], weights: Mapping[str, Tensor]) -> ModuleType:
    """What `make` makes, filled with copies of weights by name, of any floating type. UserError as of `load_into` where
    they do not fit, before anything of their size is allocated."""
    with without_weights():
        module = make()
    compare(module, weights)
    if any(buffer.is_meta for buffer in module.buffers()):
        with without_weights(are_sizes_right=True):
            module = make()
    _fill(module, weights)
    return module


@contextmanager
def without_weights(*, are_sizes_right: bool = False) -> Iterator[None]:
    """Modules that this thread makes within have their parameters on the device "meta". are_sizes_right=False: all that
    is very large is there, as settings of a damaged file may name any size."""
    thread = threading.get_ident()
    moved: dict[int, tuple[weakref.ref[nn.Parameter], nn.Parameter]] = {}

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or threading.get_ident() != thread:
            return parameter
        original, on_meta = moved.get(id(parameter), (None, None))
        if original is None or on_meta is None or original() is not parameter:
            on_meta = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
            # Modules that share a parameter go on sharing it.
            moved[id(parameter)] = weakref.ref(parameter), on_meta
        return on_meta

    on_registration: Callable[..., Any] = to_meta
    hook = register_module_parameter_registration_hook(on_registration)
    try:
        with _Unfilled(largest=None if are_sizes_right else _LARGE):
            yield
    finally:
        hook.remove()


class _Unfilled(TorchFunctionMode):
    """Leaves out what would fill a tensor on "meta" with random numbers: torch has no other way to do nothing there
    than to import its compiler. largest: tensors of more numbers are made there, unless a device is given for them."""

    def __init__(self, largest: int | None):
        super().__init__()
        self.largest = largest

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLERS:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        elif func in _MAKERS and kwargs.get("device") is None and self._is_too_large(args):
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)

    def _is_too_large(self, args: tuple[Any, ...]) -> bool:
        return self.largest is not None and _numbers(args) > self.largest


def _numbers(args: tuple[Any, ...]) -> int:
    """How many numbers a tensor has that is made with these arguments: a shape, or the sides of one."""
    sides = args[0] if args and isinstance(args[0], Sequence) else args
    count = 1
    for side in sides:
        count *= side
    return count


def _fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Makes copies of the weights the module's parameters and persistent buffers."""
    state = module.state_dict(keep_vars=True)
    shared: dict[int, Tensor] = {}
    for name, value in named_weights(module).items():
        own = weights[name].to(value.dtype, copy=True, memory_format=torch.contiguous_format)
        shared[id(value)] = nn.Parameter(own, value.requires_grad) if isinstance(value, nn.Parameter) else own
    for name, value in state.items():  # in place, as the versions of its modules come with it
        state[name] = shared[id(value)]
    module.load_state_dict(state, assign=True)
