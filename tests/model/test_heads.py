"""Poolers and heads."""

import dataclasses

import pytest
import torch
from small_encoder import SMALL
from torch.nn import functional as F

from fiber_cli.model.fusion import FusedEncoder
from fiber_cli.model.heads import Classifier, ItmHead, MlmHead, PairPooler


@torch.no_grad()
@pytest.mark.parametrize("pooler", [True, False])
def test_text_is_pooled_at_its_first_token_and_images_by_their_mean(pooler):
    torch.manual_seed(0)
    pool = PairPooler(SMALL, pooler=pooler)
    tokens, image = torch.randn(2, 5, 32), torch.randn(2, 3, 4, 64)
    text_vector = pool.text_transform(tokens[:, 0])
    image_vector = pool.image_transform(image).mean((1, 2))
    if pooler:
        text_vector = torch.tanh(pool.text_pooler(text_vector))
        image_vector = torch.tanh(pool.image_pooler(image_vector))
    torch.testing.assert_close(pool.text(tokens), text_vector)
    torch.testing.assert_close(pool.image(image), image_vector, atol=1e-6, rtol=1e-5)
    assert torch.equal(pool(image, tokens), torch.cat([pool.text(tokens), pool.image(image)], 1))


def test_the_option_without_pooler_has_no_weights_for_it():
    names = set(PairPooler(SMALL, pooler=False).state_dict())
    assert names == {"text_transform.weight", "text_transform.bias", "image_transform.weight", "image_transform.bias"}


@torch.no_grad()
def test_a_large_image_stream_saturates_the_pooler_in_spite_of_its_norm():
    torch.manual_seed(0)
    image = 100 * torch.randn(8, 3, 4, 64)
    shares = []
    for config in (SMALL, dataclasses.replace(SMALL, norm_image_memory=True)):
        pool = PairPooler(config)
        pool.image_transform.weight.normal_(std=0.2)
        shares.append((pool.image_pooler(pool.image_transform(pool.image_norm(image.mean((1, 2))))).abs() > 3).float())
    saturated, normed = (share.mean() for share in shares)
    assert normed < 0.5 * saturated


@torch.no_grad()
def test_what_text_layers_read_of_an_image_depends_on_its_scale_in_spite_of_the_norm():
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, norm_image_memory=True)
    cross = FusedEncoder(config).text.layers[-1].cross
    assert cross is not None
    image = torch.randn(2, 6, config.image.dims[-1])
    for one, other in zip(cross.project_image(image), cross.project_image(50 * image), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_heads_by_their_definition():
    torch.manual_seed(0)
    states, pooled = torch.randn(2, 5, 24), torch.randn(2, 48)
    mlm, itm, classifier = MlmHead(SMALL), ItmHead(SMALL), Classifier(SMALL, 48, 7)
    mlm.bias.uniform_()
    hidden = F.layer_norm(F.gelu(mlm.dense(states)), (24,), eps=SMALL.mlm_norm_eps)
    torch.testing.assert_close(mlm(states), hidden @ mlm.decoder.weight.T + mlm.bias)
    assert mlm(states).shape == (2, 5, SMALL.text.vocab)
    assert itm(pooled).shape == (2, 2)
    assert classifier(pooled).shape == (2, 7)
