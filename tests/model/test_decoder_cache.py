"""The cache keeps the texts and images that are told, and counts what it has seen."""

import pytest
import torch

from fiber_cli.model.decoder_cache import DecoderCache, KeyValues, LayerCache


def key_values(rows: int, tokens: int, first: float = 0.0) -> KeyValues:
    keys = torch.arange(first, first + rows * tokens).view(rows, 1, tokens, 1)
    return KeyValues(keys, -keys)


def test_new_tokens_follow_the_old():
    cache = LayerCache()
    first, second = key_values(2, 3), key_values(2, 1, 10)
    assert cache.extend(first) is first
    both = cache.extend(second)
    assert both.keys[:, 0, :, 0].tolist() == [[0, 1, 2, 10], [3, 4, 5, 11]]
    assert torch.equal(both.values, -both.keys)
    assert cache.past is both


def test_reordering_reaches_all_that_belongs_to_a_text():
    cache = DecoderCache(2)
    real = torch.tensor([[True, True], [True, False]])
    seen_real, seen = cache.add_tokens(real, real)
    assert seen == 0
    assert torch.equal(seen_real, real)
    cache.layers[0].extend(key_values(2, 2))
    cache.reorder(torch.tensor([1, 1, 0]))
    assert cache.layers[0].past.keys[:, 0, 0, 0].tolist() == [2, 2, 0]
    assert cache.layers[1].past is None
    new = torch.ones(3, 1, dtype=torch.bool)
    seen_real, seen = cache.add_tokens(new, new)
    assert seen.tolist() == [[1], [1], [2]]
    assert seen_real.tolist() == [[True, False, True], [True, False, True], [True, True, True]]
    assert cache.seen_B1.tolist() == [[2], [2], [3]]


def test_images_are_kept_apart_from_texts():
    cache = DecoderCache(2)
    cache.image_kv[1] = key_values(3, 2)
    cache.keep_images(torch.tensor([True, False, True]))
    assert cache.image_kv[1].keys[:, 0, 0, 0].tolist() == [0, 4]


def test_nothing_can_be_reordered_before_a_token():
    with pytest.raises(AssertionError, match="no token"):
        DecoderCache(1).reorder(torch.tensor([0]))
