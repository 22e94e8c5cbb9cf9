"""Windows, their shifts and their biases, and the gated look at the text."""

import torch

from fiber_cli.model.config import ImageConfig
from fiber_cli.model.swin import (
    ImageCrossAttention,
    WindowAttention,
    repeat_for_texts,
)


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
    assert torch.equal(cross(z, text, mask[:, None, None]), z)
    cross.alpha.fill_(0.5)
    looked = cross(z, text, mask[:, None, None])
    assert (looked - z).abs().max() > 1e-3
    text[1, 3:] = 7.0
    torch.testing.assert_close(cross(z, text, mask[:, None, None]), looked)


@torch.no_grad()
def test_texts_of_one_map_share_it():
    torch.manual_seed(0)
    cross = ImageCrossAttention(8, 6, heads=2, norm_query=False)
    cross.alpha.fill_(0.5)
    z, text = torch.randn(2, 3, 3, 8), torch.randn(4, 5, 6)
    mask = torch.ones(4, 5, dtype=torch.bool)
    torch.testing.assert_close(
        cross(z, text, mask[:, None, None]), cross(z.repeat_interleave(2, 0), text, mask[:, None, None])
    )
    assert repeat_for_texts(z, 2) is z
    assert repeat_for_texts(z, 4).shape == (4, 3, 3, 8)


def test_windows_of_the_published_fine_stage_are_off_by_default():
    assert not ImageConfig().fixed_window
