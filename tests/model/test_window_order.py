"""Windows of padded maps: what is multiplied, and whose gradients stay the same from run to run."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from fiber_cli.model import window_order as orders
from fiber_cli.model.swin import ImageMergedAttention, WindowAttention
from fiber_cli.model.window_order import KEPT_ORDERS, window_order
from fiber_cli.model.windows import window_partition, window_plan, window_reverse

CPU = torch.device("cpu")
#: Map, window and shift: both axes, one axis, less of a map than the shift, and one token.
SIZES = [((7, 9), 4, 2), ((8, 5), 4, 0), ((8, 5), 4, 2), ((1, 3), 4, 2), ((5, 15), 12, 6), ((1, 1), 4, 2)]


def padded_first(attention, x, text=None):
    """The published way: the map is padded with zeros, and all of that is multiplied."""
    H, W = x.shape[1:3]
    plan = window_plan(H, W, attention.window, attention.shift, CPU, fixed=attention.fixed_window)
    down, right = plan.shift
    x = F.pad(x, (0, 0, 0, plan.padded[1] - W, 0, plan.padded[0] - H))
    x = torch.roll(x, (-down, -right), (1, 2))
    windows = attention._attend(attention.qkv(window_partition(x, plan.window)), plan, text)
    x = window_reverse(attention.proj(windows), plan.window, plan.padded)
    return torch.roll(x, (down, right), (1, 2))[:, :H, :W]


def gradients(module, x, forward):
    module.zero_grad()
    x = x.clone().requires_grad_()
    out = forward(x)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    return [out.detach(), x.grad, *(parameter.grad.clone() for parameter in module.parameters())]


@pytest.mark.parametrize(("size", "window", "shift"), SIZES)
@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("maps", [1, 3])
def test_products_of_padding_are_not_those_of_zeros(size, window, shift, fixed, maps):
    """Values and gradients of what multiplies all padding."""
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, window, shift, fixed)
    x = torch.randn(maps, *size, 8)
    computed = gradients(attention, x, attention)
    expected = gradients(attention, x, lambda x: padded_first(attention, x))
    for one, other in zip(computed, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("maps", [1, 2])
def test_padded_windows_show_their_text_to_other_maps(maps):
    """Merged attention, whose text joins each window, beside the windows and beside the heads."""
    torch.manual_seed(0)
    attention, merged = WindowAttention(8, 2, 4, 2, True), ImageMergedAttention(8, 6, 2)
    merged.alpha.fill_(0.5)
    mask = torch.arange(5) < torch.tensor([[5], [3]])[:maps]
    text = merged(torch.randn(maps, 5, 6), mask[:, None, None])
    x = torch.randn(maps, 7, 9, 8)
    torch.testing.assert_close(attention(x, text), padded_first(attention, x, text))


def test_padding_is_multiplied_again():
    """A map of 5 x 5 in windows of 4 has 39 tokens of padding, of which one is multiplied."""
    attention = WindowAttention(8, 2, window=4, shift=0, fixed_window=True)
    counts = {}
    for side in (5, 8):
        with FlopCounterMode(display=False) as counter:
            attention(torch.zeros(1, side, side, 8))
        counts[side] = counter.get_flop_counts()["Global"][torch.ops.aten.addmm]
    of_one_token = 2 * 8 * 8
    assert counts[5] == (26 * 3 + 25) * of_one_token
    assert counts[8] == 64 * 4 * of_one_token


@pytest.mark.parametrize(("size", "window", "shift"), SIZES)
def test_a_token_is_lost_or_in_two_places(size, window, shift):
    plan = window_plan(*size, window, shift, CPU, fixed=True)
    order = window_order(size, plan.padded, plan.window, plan.shift, CPU)
    tokens = size[0] * size[1]
    x = torch.arange(1.0, tokens + 2)[None, :, None]
    windows = order.to_windows(x)
    assert windows.numel() == plan.padded[0] * plan.padded[1]
    assert (windows == tokens + 1).sum() == windows.numel() - tokens
    assert torch.equal(order.from_windows(windows), x[:, :-1])


def test_gradients_of_the_copies_are_not_those_of_their_definition():
    order = window_order((3, 5), (4, 8), (4, 4), (2, 2), CPU)
    tokens = torch.randn(2, 16, 2, dtype=torch.float64, requires_grad=True)
    windows = torch.randn(2, 32, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(order.to_windows, tokens)
    assert torch.autograd.gradcheck(order.from_windows, windows)


def test_orders_of_many_sizes_fill_the_memory():
    orders._kept_order.clear()
    for height, width in itertools.product(range(5, 20), range(5, 20)):
        window_order((height, width), (24, 24), (12, 12), (6, 6), CPU)
    assert len(orders._kept_order) == KEPT_ORDERS
    order = window_order((200, 334), (204, 336), (12, 12), (6, 6), CPU)
    assert order.token_P.nbytes + order.place_T1.nbytes < 1.1 * 2**20
