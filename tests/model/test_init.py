"""Fresh weights."""

import pytest
import torch
from torch import nn

from fiber_cli.model.init import initialise, zero_bias


@pytest.mark.parametrize(("std", "expected"), [(0.02, 0.02), (None, 0.05)])
def test_linear_layers_have_the_deviation_and_no_bias(std, expected):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(400, 300), nn.Linear(400, 300, bias=False))
    initialise(module, std)
    for layer in module:
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
        assert abs(layer.weight.mean().item()) < 0.01 * expected
    assert not module[0].bias.any()


def test_the_padding_row_stays_zero():
    torch.manual_seed(0)
    embedding = nn.Embedding(500, 64, padding_idx=1)
    initialise(embedding, 0.5)
    assert not embedding.weight[1].any()
    assert embedding.weight[2:].std().item() == pytest.approx(0.02, rel=0.05)


def test_a_layer_without_bias_is_left_alone():
    conv, plain = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1, bias=False)
    zero_bias(conv)
    zero_bias(plain)
    assert not conv.bias.any()
    assert plain.bias is None
