"""Convolutions that make tokens of pixels."""

import dataclasses

import pytest
import torch

from fiber_cli.errors import UserError
from fiber_cli.model.config import TINY
from fiber_cli.model.convolutional_stem import ConvolutionalStem
from fiber_cli.model.fusion import FusedEncoder


@pytest.mark.parametrize("patch", [4, 8, 16])
def test_a_patch_is_not_one_token(patch):
    stem = ConvolutionalStem(patch, 64)
    assert stem(torch.randn(2, 3, 4 * patch, 3 * patch)).shape == (2, 4, 3, 64)


def test_the_last_pixels_of_odd_sizes_are_cut():
    stem = ConvolutionalStem(8, 32)
    pixels = torch.randn(1, 3, 17, 30)
    assert stem(pixels).shape == (1, 3, 4, 32)
    other = pixels.clone()
    other[..., 16, :] += 5
    assert not torch.allclose(stem(pixels)[:, 2], stem(other)[:, 2])


def test_a_picture_depends_on_its_batch():
    stem = ConvolutionalStem(8, 32)
    pixels = torch.randn(3, 3, 32, 32)
    assert torch.allclose(stem(pixels)[1:2], stem(pixels[1:2]), atol=1e-5)


def test_the_encoder_still_has_patches():
    config = dataclasses.replace(TINY, image=dataclasses.replace(TINY.image, stem="convolutions"))
    encoder = FusedEncoder(config)
    assert isinstance(encoder.image.patch_embed, ConvolutionalStem)
    assert (
        encoder.image_stem(torch.randn(1, 3, 64, 64)).map.shape
        == FusedEncoder(TINY).image_stem(torch.randn(1, 3, 64, 64)).map.shape
    )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"patch": 6}, "stem=convolutions with patch=6: the patch must be one of 4, 8, 16, 32 pixels"),
        (
            {"embed_dim": 48, "heads": (2, 4, 8)},
            "stem=convolutions with patch=8 and embed_dim=48: must be a multiple of 32",
        ),
        ({"stem": "pixels"}, "stem='pixels': must be one of patch, convolutions"),
    ],
)
def test_sizes_that_no_stem_has_are_told(sizes, message):
    image = dataclasses.replace(TINY.image, **{"stem": "convolutions"} | sizes)
    with pytest.raises(UserError, match=message):
        dataclasses.replace(TINY, image=image)
