"""Sizes of the model: the preset, changed where the recipe says so."""

import dataclasses

import pytest

from fiber_cli.config.recipe import ModelSettings
from fiber_cli.errors import UserError
from fiber_cli.model.config import PRESETS, TINY
from fiber_cli.training.model_sizes import model_config


def test_what_the_recipe_leaves_out_is_the_presets(tokenizer):
    config = model_config(ModelSettings("tiny"), tokenizer)
    vocabulary = dataclasses.replace(TINY.text, vocab=len(tokenizer), pad_id=tokenizer.pad_token_id)
    assert config == dataclasses.replace(TINY, text=vocabulary)


def test_what_the_recipe_names_is_its_own(tokenizer):
    settings = ModelSettings(
        "tiny",
        image_size=64,
        fusion_layers=1,
        hidden=48,
        drop_path=0.0,
        dropout=0.25,
        embed_dim=32,
        depths=(1, 2),
        image_heads=(2, 4),
        text_layers=2,
        text_hidden=64,
        text_heads=2,
        text_intermediate=96,
        norm_image_query=False,
    )
    config = model_config(settings, tokenizer)
    image, text = config.image, config.text
    assert (image.embed_dim, image.depths, image.heads, image.drop_path) == (32, (1, 2), (2, 4), 0.0)
    assert (text.layers, text.hidden, text.heads, text.intermediate, text.dropout) == (2, 64, 2, 96, 0.25)
    assert (config.fusion_layers, config.hidden, config.norm_image_query) == (1, 48, False)
    assert config.image_size == (64, 64)


def test_windows_keep_their_size_for_images_of_any_size(tokenizer):
    assert model_config(ModelSettings("tiny"), tokenizer, free_image_size=True).image.fixed_window
    assert not model_config(ModelSettings("tiny"), tokenizer).image.fixed_window


@pytest.mark.parametrize("preset", PRESETS)
def test_a_text_longer_than_the_positions_is_refused(preset, tokenizer):
    # Position ids start behind the padding id.
    longest = PRESETS[preset].text.positions - tokenizer.pad_token_id - 1
    assert model_config(ModelSettings(preset, text_length=longest), tokenizer)
    with pytest.raises(
        UserError, match=rf"model\.text_length={longest + 1}: preset {preset} has positions for {longest}"
    ):
        model_config(ModelSettings(preset, text_length=longest + 1), tokenizer)
