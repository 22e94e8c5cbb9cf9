"""Copies in host memory of what a checkpoint holds, so that training goes on while they are written."""

import copy
from typing import Any

from torch import Tensor

#: What tells one tensor from another: its memory, where in it and how.
_Place = tuple[Any, ...]


class HostCopies:
    """Copies of tensors and of what holds them. Tensors that are one in memory are copied once."""

    def __init__(self) -> None:
        self._copies: dict[_Place, Tensor] = {}
        #: What was copied, so that no other tensor takes its memory meanwhile.
        self._originals: list[Tensor] = []

    def of(self, value: Any) -> Any:
        """A copy of a value: dicts, lists and tuples with all that they hold, tensors on the CPU without a graph."""
        if isinstance(value, Tensor):
            return self._of_tensor(value.detach())
        if isinstance(value, dict):
            copied = copy.copy(value)
            for key, each in value.items():
                copied[key] = self.of(each)
            return copied
        if type(value) in (list, tuple):
            return type(value)(map(self.of, value))
        return copy.deepcopy(value)

    def _of_tensor(self, tensor: Tensor) -> Tensor:
        place = (
            tensor.untyped_storage().data_ptr(),
            tensor.storage_offset(),
            tensor.shape,
            tensor.stride(),
            tensor.dtype,
        )
        if place not in self._copies or not tensor.numel():
            self._copies[place] = tensor.to("cpu", copy=True)
            self._originals.append(tensor)
        return self._copies[place]
