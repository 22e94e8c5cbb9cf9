"""Where a token lies: a table for maps of one size, resized for others, that equals no embedding where it is zero."""

import dataclasses

import pytest
import torch
from small_encoder import SMALL, make_encoder, make_inputs
from torch import Tensor

from fiber_cli.model.config import FiberConfig
from fiber_cli.model.position_embedding import PositionEmbedding, resize_position_embedding, waves


def with_positions(config: FiberConfig) -> FiberConfig:
    return dataclasses.replace(config, image=dataclasses.replace(config.image, position_embedding=True))


def ramp(height: int, width: int) -> Tensor:
    """Channel 0 rises from top to bottom, channel 1 from left to right; both from 0 to 1."""
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    return torch.stack([rows[:, None].expand(height, width), columns[None].expand(height, width)], 2)


def test_every_token_has_its_own_vector_added():
    embedding = PositionEmbedding(2, 3, 2)
    with torch.no_grad():
        embedding.table.copy_(torch.arange(12.0).view(2, 3, 2))
    x = torch.full((5, 2, 3, 2), 100.0)
    expected = [[[100, 101], [102, 103], [104, 105]], [[106, 107], [108, 109], [110, 111]]]
    for row in embedding(x):
        assert row.tolist() == expected


@pytest.mark.parametrize("channels", [1, 6, 64])
@pytest.mark.parametrize("size", [(8, 8), (4, 10)])
def test_a_table_starts_as_waves_that_tell_all_places_apart(size, channels):
    table = waves(*size, channels)
    assert table.shape == (*size, channels)
    assert table.abs().max() <= 0.5
    assert table.std() > 0.1 or channels == 1
    if channels > 4:
        vectors = table.flatten(0, 1)
        distances = torch.cdist(vectors, vectors) + 9 * torch.eye(len(vectors))
        assert distances.min() > 0.02


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (8, 12), (3, 20)])
def test_a_place_keeps_its_vector_on_maps_of_other_sizes(size):
    """Rows stay rows and columns columns: of a ramp the middle of a map is the ramp of its size."""
    resized = resize_position_embedding(ramp(8, 8), size)
    assert resized.shape == (*size, 2)
    inside = slice(1, -1)
    torch.testing.assert_close(resized[inside, inside], ramp(*size)[inside, inside], atol=0.04, rtol=0)


def test_vectors_of_half_precision_are_resized_as_such():
    assert resize_position_embedding(ramp(8, 8).half(), (4, 6)).dtype == torch.float16


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_a_table_of_zeros_is_no_embedding(size):
    without = make_encoder(SMALL)
    model = make_encoder(with_positions(SMALL))
    table = {"image.position.table": torch.zeros_like(model.image.position.table)}
    model.load_state_dict(without.state_dict() | table)
    pixels, _, _ = make_inputs(size=size)
    torch.testing.assert_close(model.image_stem(pixels).map, without.image_stem(pixels).map)


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_equal_patches_differ_by_their_place_and_the_table_learns(size):
    pixels = torch.ones(1, 3, *size)
    plain = make_encoder(SMALL).image.tokens(pixels)
    assert torch.allclose(plain[:, 1:-1, 1:-1], plain[:, 1:2, 1:2], atol=1e-5)
    model = make_encoder(with_positions(SMALL))
    tokens = model.image.tokens(pixels)
    assert (tokens[0, 1, 1] - tokens[0, 1, 2]).abs().max() > 1e-3
    tokens.square().sum().backward()
    assert model.image.position.table.grad.abs().sum() > 0
