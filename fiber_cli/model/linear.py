"""Linear maps by the faster of the two libraries that PyTorch has for products on CPUs.

MKL, which computes PyTorch's float32 products, gives processors of AMD half the width of their vectors; oneDNN, which
computes its convolutions and its products in bfloat16, gives them all of it and is twice as fast there. Both round as
float32 does, each in its own order. Without gradients such products are oneDNN's; training keeps to PyTorch's.
Shapes: K inputs, N outputs.
"""

import platform
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CPU_INFO = Path("/proc/cpuinfo")


class Linear(nn.Linear):
    """torch's, by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    """(..., K) -> (..., N), what `F.linear` computes."""
    if _suits_onednn(x, weight_NK):
        return _by_onednn(x, weight_NK, bias_N)
    return F.linear(x, weight_NK, bias_N)


def _by_onednn(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    # The operator can also compute a function of the products; it is none here.
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_NK, bias_N, "none", [], "")
    return out


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not onednn_is_faster():
        return False
    # Tensors without values, of other types and under autocast are others' business.
    is_plain = type(x) is Tensor and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return is_plain and x.dtype == weight.dtype == torch.float32 and x.numel() > 0


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor with wide vectors that MKL does not use, and PyTorch has both libraries."""
    has_both = torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()
    return has_both and torch.backends.cpu.get_cpu_capability() == "AVX512" and "AuthenticAMD" in _processor()


def _processor() -> str:
    """What the system says of the processor, its maker's name among it."""
    if CPU_INFO.is_file():
        return CPU_INFO.read_text(encoding="utf-8", errors="replace")
    return platform.processor()
