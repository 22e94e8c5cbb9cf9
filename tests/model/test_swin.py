"""Windows, their shifts and their biases, and the gated look at the text."""

import pytest
import torch

from fiber_cli.model.config import ImageConfig
from fiber_cli.model.swin import (
    ImageCrossAttention,
    WindowAttention,
    relative_position_index,
    repeat_for_texts,
    shift_mask,
    window_partition,
    window_reverse,
)


def test_shift_mask_by_hand():
    """4x4 map, window 2, shift 1: the last window of each row and column joins two borders."""
    mask = shift_mask((4, 4), (2, 2), (1, 1))
    assert mask.shape == (4, 4, 4)
    assert torch.equal(mask[0], torch.zeros(4, 4))
    apart = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]) * -100.0
    assert torch.equal(mask[1], apart)
    assert torch.equal(mask[3], (1 - torch.eye(4)) * -100.0)


def test_an_axis_without_shift_is_masked_nowhere():
    assert not shift_mask((4, 6), (2, 3), (0, 0)).any()
    down_alone = shift_mask((4, 2), (2, 2), (1, 0))
    assert not down_alone[0].any()
    assert torch.equal(down_alone[1][0] == 0, torch.tensor([True, True, False, False]))


def test_relative_positions_by_hand():
    index = relative_position_index(2, 2, 2)
    assert index[0, 0] == 4
    assert index[0, 3] == 0
    assert index[3, 0] == 8
    assert index[0, 1] == 3


def test_smaller_windows_read_the_middle_of_the_table():
    """Offsets keep their row of the table: (dy, dx) = (0, 0) is its middle for every size of window."""
    whole, narrow = relative_position_index(3, 3, 3), relative_position_index(3, 1, 2)
    assert whole.unique().tolist() == list(range(25))
    assert narrow.tolist() == [[12, 11], [13, 12]]


def test_windows_are_taken_apart_and_put_together():
    x = torch.arange(2 * 4 * 6).view(2, 4, 6, 1)
    windows = window_partition(x, (2, 3))
    assert windows.shape == (2, 4, 6, 1)
    assert windows[0, 1].flatten().tolist() == [3, 4, 5, 9, 10, 11]
    assert torch.equal(window_reverse(windows, (2, 3), (4, 6)), x)


@torch.no_grad()
def test_small_maps():
    """A map smaller than the window is one window of its own size, its bias read from the table's middle; with
    `fixed_window` it is padded and shifted as in the published fine stage."""
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, window=4, shift=2, fixed_window=False)
    x = torch.randn(1, 3, 6, 8)
    small = WindowAttention(8, 2, window=3, shift=1, fixed_window=False)
    small.load_state_dict(attention.state_dict() | {"relative_position_bias_table": torch.zeros(25, 2)})
    table = attention.relative_position_bias_table.view(7, 7, 2)
    small.relative_position_bias_table.copy_(table[1:-1, 1:-1].reshape(25, 2))
    torch.testing.assert_close(attention(x[:, :, :3]), small(x[:, :, :3]))
    assert attention(x).shape == x.shape
    fixed = WindowAttention(8, 2, window=4, shift=0, fixed_window=True)
    fixed.load_state_dict(attention.state_dict())
    padded = torch.nn.functional.pad(x, (0, 0, 0, 2, 0, 1))
    torch.testing.assert_close(fixed(x), fixed(padded)[:, :3, :6])
    assert (fixed(x[:, :, :3]) - attention(x[:, :, :3])).abs().max() > 1e-3


@torch.no_grad()
def test_shifted_windows_attend_as_the_definition_says():
    """Token by token: each sees the tokens of its window that were its neighbours before the roll."""
    torch.manual_seed(0)
    attention = WindowAttention(4, 1, window=2, shift=1, fixed_window=False)
    x = torch.randn(1, 4, 4, 4)
    q, k, v = attention.qkv(x[0]).chunk(3, -1)
    table = attention.relative_position_bias_table.view(3, 3)
    expected = torch.zeros(4, 4, 4)
    for y in range(4):
        for c in range(4):
            logits, values = [], []
            for y2 in range(4):
                for c2 in range(4):
                    # Windows of the shifted grid: rows {0}, {1, 2}, {3}, and columns likewise.
                    if (y + 1) // 2 == (y2 + 1) // 2 and (c + 1) // 2 == (c2 + 1) // 2:
                        bias = table[y - y2 + 1, c - c2 + 1]
                        logits.append(q[y, c] @ k[y2, c2] / 2 + bias)
                        values.append(v[y2, c2])
            weights = torch.stack(logits).softmax(0)
            expected[y, c] = weights @ torch.stack(values)
    torch.testing.assert_close(attention(x)[0], attention.proj(expected))


@torch.no_grad()
def test_a_closed_gate_and_hidden_tokens_change_nothing():
    torch.manual_seed(0)
    cross = ImageCrossAttention(8, 6, heads=2, norm_query=True)
    z, text = torch.randn(2, 3, 3, 8), torch.randn(2, 5, 6)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    assert torch.equal(cross(z, text, mask), z)
    cross.alpha.fill_(0.5)
    looked = cross(z, text, mask)
    assert (looked - z).abs().max() > 1e-3
    text[1, 3:] = 7.0
    torch.testing.assert_close(cross(z, text, mask), looked)


@torch.no_grad()
def test_texts_of_one_map_share_it():
    torch.manual_seed(0)
    cross = ImageCrossAttention(8, 6, heads=2, norm_query=False)
    cross.alpha.fill_(0.5)
    z, text = torch.randn(2, 3, 3, 8), torch.randn(4, 5, 6)
    mask = torch.ones(4, 5, dtype=torch.bool)
    torch.testing.assert_close(cross(z, text, mask), cross(z.repeat_interleave(2, 0), text, mask))
    assert repeat_for_texts(z, 2) is z
    assert repeat_for_texts(z, 4).shape == (4, 3, 3, 8)


@pytest.mark.parametrize("fixed_window", [True, False])
def test_plans_are_made_once_a_size(fixed_window):
    attention = WindowAttention(8, 2, window=4, shift=2, fixed_window=fixed_window)
    first, again = attention._plan(8, 8, torch.device("cpu")), attention._plan(8, 8, torch.device("cpu"))
    assert first is again
    assert first.padded == (8, 8)
    assert first.shift == (2, 2)
    small = attention._plan(3, 8, torch.device("cpu"))
    assert small.window == ((4, 4) if fixed_window else (3, 4))
    assert small.shift == ((2, 2) if fixed_window else (0, 2))


def test_windows_of_the_published_fine_stage_are_off_by_default():
    assert not ImageConfig().fixed_window
