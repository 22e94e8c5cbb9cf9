"""RoBERTa's positions, masks and caches."""

import pytest
import torch
from small_encoder import SMALL

from fiber_cli.model.decoder_cache import LayerCache
from fiber_cli.model.text import TextLayer, merge_heads, position_ids, split_heads


@pytest.fixture
def layer() -> TextLayer:
    torch.manual_seed(0)
    layer = TextLayer(SMALL.text, image_dim=16).eval()
    assert layer.cross is not None
    with torch.no_grad():
        layer.cross.alpha.fill_(0.5)
    return layer


def test_positions_count_real_tokens_behind_the_padding_id():
    ids = torch.tensor([[0, 7, 8, 1, 1], [1, 1, 0, 7, 8]])
    assert position_ids(ids, pad_id=1).tolist() == [[2, 3, 4, 1, 1], [1, 1, 2, 3, 4]]
    assert position_ids(ids[:, 2:3], 1, past_B1=torch.tensor([[2], [0]])).tolist() == [[4], [2]]


def test_heads_are_split_and_merged():
    x = torch.randn(2, 5, 12)
    assert split_heads(x, 3).shape == (2, 3, 5, 4)
    assert torch.equal(split_heads(x, 3)[0, 1, 2], x[0, 2, 4:8])
    assert torch.equal(merge_heads(split_heads(x, 3)), x)


@torch.no_grad()
def test_the_first_token_alone_equals_the_whole(layer):
    x, image = torch.randn(2, 5, 32), torch.randn(2, 7, 16)
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    torch.testing.assert_close(layer(x, mask, image, first=1), layer(x, mask, image)[:, :1])


@torch.no_grad()
def test_hidden_tokens_are_not_seen(layer):
    x, image = torch.randn(2, 5, 32), torch.randn(2, 7, 16)
    mask = torch.tensor([True, True, True, False, False]).expand(2, 1, 1, 5)
    before = layer(x, mask, image)[:, :3]
    x[:, 3:] = 9.0
    torch.testing.assert_close(layer(x, mask, image)[:, :3], before)


@torch.no_grad()
def test_projected_images_serve_several_texts_each(layer):
    x, image = torch.randn(4, 5, 32), torch.randn(2, 7, 16)
    mask = torch.ones(1, 1, 1, 5, dtype=torch.bool)
    shared = layer(x, mask, layer.cross.project_image(image))
    torch.testing.assert_close(shared, layer(x, mask, image.repeat_interleave(2, 0)))


@torch.no_grad()
def test_tokens_one_by_one_equal_a_causal_pass(layer):
    x, image = torch.randn(2, 4, 32), torch.randn(2, 7, 16)
    whole = layer(x, torch.ones(4, 4, dtype=torch.bool).tril(), image)
    cache, steps = LayerCache(), []
    for i in range(4):
        steps.append(layer(x[:, i : i + 1], torch.ones(1, i + 1, dtype=torch.bool), image, cache=cache))
    torch.testing.assert_close(torch.cat(steps, 1), whole)


@torch.no_grad()
def test_the_last_norm_can_be_left_out(layer):
    x, mask = torch.randn(2, 5, 32), torch.ones(1, 1, 1, 5, dtype=torch.bool)
    raw = layer(x, mask, last_norm=False)
    assert (raw - layer(x, mask)).abs().max() > 1e-3
    torch.testing.assert_close(layer.out_norm(raw), layer(x, mask))


def test_an_unfused_layer_given_an_image_is_a_programming_error():
    layer = TextLayer(SMALL.text, image_dim=None)
    with pytest.raises(AssertionError, match="not fused"):
        layer(torch.randn(1, 2, 32), torch.ones(1, 1, 1, 2, dtype=torch.bool), torch.randn(1, 7, 16))
