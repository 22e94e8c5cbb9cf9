"""Tensors that follow from a few numbers, made once."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

Made = TypeVar("Made")


class Kept(Generic[Made]):
    """A function whose last results are kept, at most so many; of more the least recently used goes.

    They are made outside of inference mode, as training may use later what inference asked for first. What
    FakeTensorMode makes has no values and is not kept.
    """

    def __init__(self, make: Callable[..., Made], most: int):
        self._make = make
        self._most = most
        self._made: OrderedDict[tuple[Hashable, ...], Made] = OrderedDict()

    def __call__(self, *key: Hashable) -> Made:
        """What the function gives for these arguments; not to be changed."""
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key]
        with torch.inference_mode(mode=False):
            made = self._make(*key)
        if any(isinstance(leaf, FakeTensor) for leaf in tree_leaves(made)):
            return made
        self._made[key] = made
        if len(self._made) > self._most:
            self._made.popitem(last=False)
        return made

    def __len__(self) -> int:
        """How many results are kept."""
        return len(self._made)

    def clear(self) -> None:
        self._made.clear()


def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


_constants = Kept(_constant, 64)


def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The values of a formula, (n,), not to be changed. To bring them to a GPU for every batch would keep the host
    waiting for all that the GPU still has to do."""
    return _constants(values, dtype, device)
