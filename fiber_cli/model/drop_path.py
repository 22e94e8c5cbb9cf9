"""Stochastic depth whose rate is no part of a compiled graph."""

import torch
from timm.layers.drop import DropPath as TimmDropPath
from torch import Tensor


class DropPath(TimmDropPath):
    """timm's. Every block has another rate, which as a number would make a graph of each block; compiled graphs read it
    from a tensor, and all blocks of a kind share one."""

    def __init__(self, rate: float):
        super().__init__(rate)
        # No buffer: it goes to no device and into no checkpoint.
        self._kept = torch.tensor(1 - rate, device="cpu")

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; in training some samples are 0 and the others larger."""
        if not torch.compiler.is_compiling():
            dropped: Tensor = super().forward(x)
            return dropped
        if not self.training:
            return x
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        is_kept = torch.rand(shape, device=x.device) < self._kept
        return x * (is_kept / self._kept).to(x.dtype)
