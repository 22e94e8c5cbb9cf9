"""LayerNorm in low precision."""

import pytest
import torch
from torch import nn

from fiber_cli.model.norm import LayerNorm


@pytest.mark.parametrize("in_low_precision", [False, True])
def test_norms_differ_from_torchs(in_low_precision):
    torch.manual_seed(0)
    norm, plain = LayerNorm(16), nn.LayerNorm(16)
    nn.init.normal_(norm.weight)
    plain.load_state_dict(norm.state_dict())
    norm.in_low_precision = in_low_precision
    x = torch.randn(3, 5, 16) * 30 + 100
    torch.testing.assert_close(norm(x), plain(x), atol=0, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, expected = norm(x.bfloat16()), plain(x.bfloat16().float())
    assert low.dtype == torch.bfloat16 if in_low_precision else torch.float32
    # Sums in bfloat16 would be off by far more.
    torch.testing.assert_close(low.float(), expected.float(), atol=0.02, rtol=0.02)
    low.float().sum().backward()
    assert norm.weight.grad.isfinite().all()
