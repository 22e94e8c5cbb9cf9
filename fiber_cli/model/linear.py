"""Linear maps by the faster of the two libraries that PyTorch has for products on CPUs.

MKL, which computes PyTorch's float32 products, gives processors of AMD half the width of their vectors; oneDNN, which
computes its convolutions and its products in bfloat16, gives them all of it and is twice as fast there. Both round as
float32 does, each in its own order.
Shapes: R rows, K inputs, N outputs.
"""

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

CPU_INFO = Path("/proc/cpuinfo")
#: Fewer are turned round, see `_product_of_columns`.
FEW_COLUMNS = 256


class Linear(nn.Linear):
    """torch's, by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    """(..., K) -> (..., N), what `F.linear` computes."""
    if not _suits_onednn(x, weight_NK):
        return F.linear(x, weight_NK, bias_N)
    if torch.is_grad_enabled():
        out: Tensor = _Products.apply(x, weight_NK, bias_N)
        return out
    return _by_onednn(x, weight_NK, bias_N)


class _Products(torch.autograd.Function):
    """`_by_onednn` with its gradients, by oneDNN too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_NK)
        return _by_onednn(x, weight_NK, bias_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (of_out,) = gradients
        x, weight_NK = ctx.saved_tensors
        of_x, of_weight, of_bias = None, None, None
        if ctx.needs_input_grad[0]:
            of_x = _by_onednn(of_out, weight_NK.T, None)
        of_out_RN = of_out.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            of_weight = _product_of_columns(of_out_RN, x.flatten(0, -2))
        if ctx.needs_input_grad[2]:
            of_bias = of_out_RN.sum(0)
        return of_x, of_weight, of_bias


def _product_of_columns(a_RN: Tensor, b_RK: Tensor) -> Tensor:
    """(N, K): of every column of one with every column of the other."""
    # oneDNN is half as fast with many columns before few; of many beside many, turning the result round costs more.
    if b_RK.shape[1] < min(a_RN.shape[1], FEW_COLUMNS):
        return _by_onednn(b_RK.T, a_RN.T, None).T
    return _by_onednn(a_RN.T, b_RK.T, None)


def _by_onednn(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    # The operator can also compute a function of the products; it is none here.
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_NK, bias_N, "none", [], "")
    return out


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether these are float32 tensors on a CPU that `onednn_is_faster` on. What is compiled, counted, or computed
    under autocast keeps to PyTorch's own operators."""
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode() or not onednn_is_faster():
        return False
    is_plain = type(x) is Tensor and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return is_plain and x.dtype == weight.dtype == torch.float32 and x.ndim > 1 and x.numel() > 0


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor with wide vectors that MKL does not use, and PyTorch has both libraries."""
    has_both = torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()
    return has_both and torch.backends.cpu.get_cpu_capability() == "AVX512" and "AuthenticAMD" in _processor()


def _processor() -> str:
    """What the system says of the processor, its maker's name among it."""
    if not CPU_INFO.is_file():
        return platform.processor()
    with CPU_INFO.open(encoding="utf-8", errors="replace") as info:
        return info.read(1000)  # of the first core; there may be hundreds, all alike
