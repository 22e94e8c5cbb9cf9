"""What is added to logits hides what it should, in rows as GPUs read them."""

import pytest
import torch
import torch.nn.functional as F

from fiber_cli.model.attention_bias import ALIGNMENT, key_bias, narrowed, product_dtype, with_wide_rows


@pytest.mark.parametrize("length", [8, 13])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_keys_are_hidden_than_by_a_bool_mask(length, dtype):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, length, 8).to(dtype)
    may_see = torch.rand(2, 1, 1, length) < 0.7
    may_see[..., 0] = True
    bias = key_bias(may_see, like=query)
    assert bias.dtype == dtype
    assert bias.shape == may_see.shape
    assert all(step % ALIGNMENT == 0 for step in bias.stride()[:-1])
    by_bias = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    assert torch.equal(by_bias, F.scaled_dot_product_attention(query, key, value, attn_mask=may_see))


def test_wide_rows_change_what_they_hold():
    table = torch.arange(15).view(3, 5)
    wide = with_wide_rows(table)
    assert wide.shape == (3, 8)
    assert torch.equal(wide[:, :5], table)
    assert not wide[:, 5:].any()
    full = torch.ones(2, 16)
    assert with_wide_rows(full) is full


def test_products_are_of_another_type_than_autocasts():
    x, exact = torch.ones(2, 3), torch.ones(2, dtype=torch.float64)
    assert narrowed(x) is x
    with torch.autocast("cpu", torch.bfloat16):
        assert product_dtype(x) == narrowed(x).dtype == F.linear(x, torch.ones(4, 3)).dtype == torch.bfloat16
        assert narrowed(exact) is exact
    assert product_dtype(torch.ones(2, device="meta")) == torch.float32
