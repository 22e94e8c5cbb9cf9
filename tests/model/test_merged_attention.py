"""Merged attention against its definition."""

import torch

from fiber_cli.model.decoder_cache import KeyValues
from fiber_cli.model.merged_attention import gate, merged_attention


def test_one_softmax_does_not_go_over_both():
    torch.manual_seed(0)
    q = torch.randn(1, 1, 3, 4)
    own = KeyValues(torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4))
    other = KeyValues(torch.randn(1, 1, 2, 4), torch.randn(1, 1, 2, 4))
    bias = torch.randn(1, 1, 3, 3)
    seen = torch.tensor([[[[True, False]]]])
    alpha = torch.tensor([0.25])
    of_own = q @ own.keys.mT / 2 + bias
    weights = torch.cat([of_own, q @ other.keys[:, :, :1].mT / 2], 3).softmax(3)
    merged = weights[..., :3] @ own.values + weights[..., 3:] @ other.values[:, :, :1]
    alone = of_own.softmax(3) @ own.values
    torch.testing.assert_close(merged_attention(q, own, bias, other, seen, None), merged)
    torch.testing.assert_close(merged_attention(q, own, bias, other, seen, alpha), 0.75 * alone + 0.25 * merged)


def test_a_block_without_a_gate_has_one():
    assert gate(False) is None
    shut = gate(True)
    assert shut is not None
    assert shut.item() == 0.0
