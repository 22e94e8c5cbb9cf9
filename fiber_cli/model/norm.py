"""LayerNorm that can keep to the precision of autocast, which else leaves it for float32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """torch's. in_low_precision: under autocast what goes in and comes out has autocast's type, as do the residual
    streams that begin with it; sums inside are float32 all the same. Half of the memory traffic of the rest."""

    in_low_precision = False

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        device = x.device.type
        if not (self.in_low_precision and torch.is_autocast_enabled(device)):
            return super().forward(x)
        dtype = torch.get_autocast_dtype(device)
        weight, bias = self.weight.to(dtype), self.bias.to(dtype)
        with torch.autocast(device, enabled=False):
            return F.layer_norm(x.to(dtype), self.normalized_shape, weight, bias, self.eps)
