"""Products in int8."""

import pickle

import pytest
import torch
from torch import nn

from fiber_cli.model import int8
from fiber_cli.model.int8 import Int8Linear, with_int8


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(96, 40)


def rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_a_row_depends_on_the_rows_beside_it(layer):
    x = rows(70, 96) * torch.logspace(-3, 3, 70)[:, None]
    low = Int8Linear(layer)
    together = low(x)
    for start, end in ((0, 1), (3, 10), (69, 70)):
        assert torch.equal(low(x[start:end]), together[start:end])
    scale = torch.linalg.vector_norm(layer.weight, dim=1) * torch.linalg.vector_norm(x, dim=1, keepdim=True)
    assert ((together - layer(x)).abs() / scale).max() < 0.02


def test_largest_weights_are_not_added_up_on_this_processor():
    """Whatever kind it is: sums of the largest weights with the largest inputs, and with the least, are exact."""
    weight = torch.full((64, 512), int8.most_of_weights(), dtype=torch.int8)
    for most in (127, -127):
        products = torch._int_mm(torch.full((40, 512), most, dtype=torch.int8), weight.T.contiguous())
        assert (products == 512 * most * int8.most_of_weights()).all()


@torch.inference_mode()
@pytest.mark.parametrize("most", [64, None])
def test_what_is_multiplied_is_not_the_weights_and_the_rows_rounded(layer, most, monkeypatch):
    """By plain sums of whole numbers."""
    most = most or int8.most_of_weights()
    monkeypatch.setattr(int8, "most_of_weights", lambda: most)
    x = rows(5, 96)
    steps = layer.weight.abs().amax(1, keepdim=True) / most, x.abs().amax(1, keepdim=True) / 127
    weight, factors = ((t / s).round().double() for t, s in zip((layer.weight, x), steps, strict=True))
    expected = factors @ weight.T * steps[1] * steps[0].T + layer.bias
    torch.testing.assert_close(Int8Linear(layer)(x).double(), expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_blocks_of_rows_are_others_than_all_at_once(layer, monkeypatch):
    x, low = rows(50, 96), Int8Linear(layer)
    whole = low(x)
    for block in (1, 7 * 96, 49 * 96):
        monkeypatch.setattr(int8, "_BLOCK", block)
        assert torch.equal(low(x), whole)


@torch.inference_mode()
@pytest.mark.parametrize("shape", [(96,), (2, 96), (2, 3, 96), (2, 3, 4, 96), (0, 96), (2, 0, 96)])
def test_some_shape_is_not_mapped(layer, shape):
    low = Int8Linear(layer)(rows(*shape))
    assert low.shape == layer(rows(*shape)).shape
    torch.testing.assert_close(low, layer(rows(*shape)), atol=0.05, rtol=0)


@torch.inference_mode()
def test_zeros_and_what_is_no_number_become_something_else(layer):
    x = rows(4, 96)
    x[1] = 0
    x[2, 3] = torch.nan
    x[3, 3] = torch.inf
    low = Int8Linear(layer)(x)
    assert torch.equal(low[1], layer.bias)
    assert low[2:].isnan().all()
    assert low[0].isfinite().all()


@torch.inference_mode()
def test_a_layer_without_bias_or_within_others_is_left_out():
    network = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Sequential(nn.ReLU(), nn.Linear(8, 4)))
    expected = network(rows(3, 8))
    with_int8(network)
    assert [type(module) for module in network.modules() if hasattr(module, "weight_KN")] == [Int8Linear] * 2
    torch.testing.assert_close(network(rows(3, 8)), expected, atol=0.05, rtol=0)
    copied = pickle.loads(pickle.dumps(network))
    assert torch.equal(copied(rows(3, 8)), network(rows(3, 8)))
    assert sum(buffer.numel() for buffer in network.buffers() if buffer.dtype == torch.int8) == 8 * 8 + 8 * 4
    assert not list(network.parameters())
