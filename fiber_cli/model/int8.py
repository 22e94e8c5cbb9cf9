"""Linear maps that multiply in int8 on CPUs, for predictions: weights are rounded once, by the range of each output's
row, and what they are multiplied with in every pass, by the range of each of its rows. So what a row gives does not
depend on the rows beside it.
Shapes: R rows, K inputs, N outputs.
"""

from functools import cache

import torch
from torch import Tensor, nn

#: The largest number in int8 whose opposite is there too.
_MOST = 127
#: The largest weight whose products with any two numbers in int8 oneDNN can add on processors without VNNI, in 16 bits.
_MOST_IN_PAIRS = 64
#: Stands for the range of a row of zeros.
_LEAST_RANGE = 1e-12
#: Numbers that are multiplied at once: about as many as a core's cache holds.
_BLOCK = 1 << 19


class Int8Linear(nn.Module):
    """What a linear layer computes, in float32 of float32 and nearly so: its weights are kept in int8 alone."""

    weight_KN: Tensor
    scale_N: Tensor
    bias_N: Tensor

    def __init__(self, layer: nn.Linear):
        super().__init__()
        weight_NK = layer.weight.detach()
        scale_N1 = _scale(weight_NK, most_of_weights())
        bias_N = torch.zeros(len(weight_NK)) if layer.bias is None else layer.bias.detach()
        # Few rows, those of a caption's next token, are multiplied faster with weights in this order.
        self.register_buffer("weight_KN", _rounded(weight_NK, scale_N1).T.contiguous())
        self.register_buffer("scale_N", scale_N1[:, 0])
        self.register_buffer("bias_N", bias_N)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        x_RK = x.reshape(-1, x.shape[-1])
        out_RN = x.new_empty(len(x_RK), len(self.bias_N))
        rows = max(1, _BLOCK // max(self.weight_KN.shape))
        for block_RK, out in zip(x_RK.split(rows), out_RN.split(rows), strict=True):
            self._multiply(block_RK, out)
        return out_RN.reshape(*x.shape[:-1], out_RN.shape[1])

    def _multiply(self, x_RK: Tensor, out_RN: Tensor) -> None:
        scale_R1 = _scale(x_RK, _MOST)
        products_RN = torch._int_mm(_rounded(x_RK, scale_R1), self.weight_KN)
        torch.addcmul(self.bias_N, products_RN.float().mul_(scale_R1), self.scale_N, out=out_RN)


@cache
def most_of_weights() -> int:
    """The largest number that a weight is rounded to on this processor: where sums of two products do not fit into what
    it adds them in, weights have 7 bits in place of 8. Found by a product of the largest numbers."""
    inputs = 512
    largest_RK = torch.full((8, inputs), _MOST, dtype=torch.int8)
    largest_KN = torch.full((inputs, 64), _MOST, dtype=torch.int8)
    is_exact = bool((torch._int_mm(largest_RK, largest_KN) == _MOST * _MOST * inputs).all())
    return _MOST if is_exact else _MOST_IN_PAIRS


def _scale(x_RK: Tensor, most: int) -> Tensor:
    """(R, 1): what one step of int8 stands for in each row, whose largest number becomes `most` of them."""
    return x_RK.abs().amax(1, keepdim=True).clamp_(min=_LEAST_RANGE).div_(most)


def _rounded(x_RK: Tensor, scale_R1: Tensor) -> Tensor:
    return (x_RK / scale_R1).round_().to(torch.int8)


def with_int8(network: nn.Module) -> None:
    """Put `Int8Linear` in the place of every linear layer of a network."""
    for module in list(network.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.Linear):
                setattr(module, name, Int8Linear(layer))
