"""What is added to the logits of attention, as the fused kernels of GPUs read it: in the type of the products, and in
rows that begin at multiples of 16 bytes. What comes otherwise PyTorch converts or copies before every attention.

Shapes: L keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

#: Elements of 16 bits in 16 bytes.
ALIGNMENT = 8


def product_dtype(x: Tensor) -> torch.dtype:
    """What products of x are computed in: autocast's type, without it that of x."""
    device = x.device.type
    knows_autocast = torch.amp.is_autocast_available(device)
    if knows_autocast and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


def narrowed(x: Tensor) -> Tensor:
    """x as autocast would cast it for a product, once for several of them."""
    return x.to(product_dtype(x))


def with_wide_rows(table: Tensor) -> Tensor:
    """Of whole numbers or floats (..., L), the same in rows of a multiple of `ALIGNMENT`: zeros behind the last."""
    missing = -table.shape[-1] % ALIGNMENT
    # A compiled graph pads by what may be nothing, so that one serves all lengths.
    if torch.compiler.is_compiling() or missing:
        return F.pad(table, (0, missing))
    return table


def key_bias(may_see: Tensor, like: Tensor) -> Tensor:
    """Minus infinity where a key may not be seen, else 0, (..., L), of bool (..., L). like: what asks."""
    length = may_see.shape[-1]
    is_hidden = with_wide_rows(may_see.logical_not())
    bias = torch.zeros(is_hidden.shape, dtype=product_dtype(like), device=may_see.device)
    return bias.masked_fill_(is_hidden, -torch.inf)[..., :length]
