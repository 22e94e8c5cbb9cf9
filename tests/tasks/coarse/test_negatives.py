"""Negatives follow the similarities and never show what matches."""

import pytest
import torch

from fiber_cli.errors import UserError
from fiber_cli.model.fusion import ImageStem, TextStem
from fiber_cli.tasks.coarse.negatives import Negatives, Weights, draw_negatives, fetch, sampling_weights

#: Rows 3 and 4 are two captions of one image.
KEY = torch.tensor([0, 1, 2, 3, 3, 4])
DRAWS = 4000


def test_a_row_is_never_its_own_negative_by_weight():
    similarities = torch.randn(3, 8)
    weights = sampling_weights(similarities, block=1)
    expected = similarities.softmax(1)
    for row in range(3):
        expected[row, 3 + row] = 0.0
    assert torch.equal(weights, expected)


@pytest.mark.parametrize("margin", [0.5, 3.0])
def test_only_what_is_further_than_the_margin_is_drawn(margin):
    similarities = torch.randn(6, 6, generator=torch.Generator().manual_seed(1)) * 4
    weights = sampling_weights(similarities, 0, margin)
    is_far = similarities <= similarities.diagonal()[:, None] - margin
    assert torch.equal(weights > 0, is_far)
    # Among them the softmax of the paper.
    for row in range(6):
        of_row = similarities[row, is_far[row]]
        assert weights[row, is_far[row]] / weights[row].sum() == pytest.approx(of_row.softmax(0), abs=1e-6)


def test_where_all_are_spared_the_draw_is_uniform():
    similarities = torch.zeros(4, 4)
    weights = Weights(sampling_weights(similarities, 0, 1.0), sampling_weights(similarities, 0, 1.0))
    drawn = {int(draw_negatives(torch.arange(4), seed, weights).images[0]) for seed in range(60)}
    assert drawn == {1, 2, 3}


def test_hard_negatives_follow_the_similarities_and_never_show_the_same_image():
    similarities = torch.randn(6, 6, generator=torch.Generator().manual_seed(3))
    weights = Weights(sampling_weights(similarities, 0), sampling_weights(similarities.T, 0))
    counts = torch.zeros(2, 6, 6)
    for seed in range(DRAWS):
        for side, rows in enumerate(draw_negatives(KEY, seed, weights)):
            counts[side, torch.arange(6), rows] += 1
    assert counts[:, torch.arange(6), torch.arange(6)].sum() == 0
    assert counts[:, 3, 4].sum() == 0
    assert counts[:, 4, 3].sum() == 0
    for side, of_side in ((0, similarities.T), (1, similarities)):
        allowed = of_side.softmax(1).masked_fill(KEY[:, None] == KEY[None, :], 0.0)
        expected = allowed / allowed.sum(1, keepdim=True)
        assert (counts[side] / DRAWS - expected).abs().max() < 0.04


def test_random_negatives_are_uniform():
    counts = torch.zeros(6)
    for seed in range(DRAWS):
        counts[draw_negatives(KEY, seed, None).images[0]] += 1
    assert (counts[1:] / DRAWS - 0.2).abs().max() < 0.03


def test_a_batch_of_one_image_takes_any_other_row_and_of_one_pair_is_an_error():
    drawn = draw_negatives(torch.zeros(3, dtype=torch.long), 0, None)
    for rows in drawn:
        assert (rows != torch.arange(3)).all()
    with pytest.raises(UserError, match="needs a negative"):
        draw_negatives(KEY[:1], 0, None)


def test_fetched_stems_are_those_of_the_rows_with_their_gradients():
    image = ImageStem(torch.randn(3, 2, 2, 4, requires_grad=True))
    text = TextStem(torch.randn(3, 5, 4, requires_grad=True), torch.rand(3, 5) < 0.5)
    drawn = Negatives(torch.tensor([2, 2, 0]), torch.tensor([1, 0, 0]))
    negative_image, negative_text = fetch(image, text, drawn)
    assert torch.equal(negative_image.map, image.map[drawn.images])
    assert torch.equal(negative_text.tokens, text.tokens[drawn.texts])
    assert torch.equal(negative_text.mask, text.mask[drawn.texts])
    negative_image.map.sum().backward()
    assert image.map.grad[:, 0, 0, 0].tolist() == [1, 0, 2]
    assert drawn.first(2).texts.tolist() == [1, 0]
    assert drawn.first(None).texts.tolist() == [1, 0, 0]
