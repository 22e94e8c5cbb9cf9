"""Stochastic depth whose rate is no part of a compiled graph."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.kept import Kept


def _make_ones(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones(shape, dtype=dtype, device=device)


_ones = Kept(_make_ones, 64)


class DropPath(nn.Module):
    """In training each sample's branch is left out with probability `rate`, and the others are scaled so that the mean
    stays ("Deep Networks with Stochastic Depth", ECCV 2016); on CPUs with timm's random numbers.

    Every block has another rate, which as a number would make a graph of each block; compiled graphs read it from a
    tensor, and all blocks of a kind share one."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        # No buffer: it goes to no device and into no checkpoint.
        self._kept = torch.tensor(1 - rate, device="cpu")

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; in training some samples are 0 and the others larger."""
        if not self.training:
            return x
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        if torch.compiler.is_compiling():
            is_kept = torch.rand(shape, device=x.device) < self._kept
            return x * (is_kept / self._kept).to(x.dtype)
        if self.rate == 0:
            return x
        if self.rate == 1:
            return x * x.new_empty(shape).bernoulli_(0.0)  # dropout would draw no number
        # One operation, where a GPU would wait for three so small ones.
        return x * F.dropout(_ones(shape, x.dtype, x.device), self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"
