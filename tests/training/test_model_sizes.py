"""Sizes of the model: the preset, changed where the recipe says so."""

import dataclasses
import re

import pytest
import timm
import torch
from public_backbones import public_roberta_config, public_swin
from small_encoder import SMALL as ENCODER
from timm.models import save_for_hf
from transformers import RobertaModel

from fiber_cli.config.recipe import ModelSettings
from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.errors import UserError
from fiber_cli.model.config import LARGE, MINI, PRESETS, SMALL, TINY
from fiber_cli.tables.commands import stages
from fiber_cli.training.model_sizes import differing_sizes, model_config


def test_what_the_recipe_leaves_out_is_the_presets(tokenizer):
    config = model_config(ModelSettings("tiny"), tokenizer)
    vocabulary = dataclasses.replace(TINY.text, vocab=len(tokenizer), pad_id=tokenizer.pad_token_id)
    assert config == dataclasses.replace(TINY, text=vocabulary)


def free_of_data(config):
    """A model without what may differ between a checkpoint and what starts from it."""
    image = dataclasses.replace(config.image, window=1, stage_windows=None, fixed_window=False, drop_path=0)
    # One that learned no positions may learn them now.
    image = dataclasses.replace(image, position_embedding=False)
    text = dataclasses.replace(config.text, dropout=0)
    return dataclasses.replace(config, image=image, text=text, image_size=(224, 224), norm_image_query=True)


@pytest.mark.parametrize("name", [stage.run for stage in stages().values() if stage.starts_from in stages()])
def test_a_recipe_has_another_model_than_the_checkpoint_that_its_command_starts_from(name, monkeypatch):
    monkeypatch.setattr("fiber_cli.training.model_sizes.swin_sizes", lambda name, preset: preset)
    models = []
    for run in (name, stages()[name].starts_from):
        recipe = resolve_recipe(stages()[run].recipe)
        models.append(free_of_data(model_config(recipe.model, None)))
    assert models[0] == models[1]


def test_it_is_not_said_what_makes_a_model_another_than_a_checkpoint_s():
    assert differing_sizes(TINY, TINY.at_image_size((128, 128))) == []
    differing = differing_sizes(MINI, TINY)
    assert differing[0] == "the sizes of model.preset=mini"
    assert "image.stem convolutions and not patch" in differing
    narrow = dataclasses.replace(TINY, hidden=48)
    assert differing_sizes(narrow, dataclasses.replace(TINY, fusion_layers=1)) == [
        "fusion_layers 2 and not 1",
        "hidden 48 and not 256",
    ]


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


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_fusion_none_is_another_model_than_no_layers(preset, tokenizer):
    named = model_config(ModelSettings(preset, fusion="none"), tokenizer)
    assert named == model_config(ModelSettings(preset, fusion_layers=0), tokenizer)
    assert named.fusion_layers == 0


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


@pytest.fixture
def public(tmp_path):
    """Folders of a Swin and of a RoBERTa as timm and transformers write them, in the sizes of a small encoder."""
    swin = public_swin(ENCODER.image, classes=5)
    sizes = {"embed_dim": ENCODER.image.embed_dim, "depths": ENCODER.image.depths, "num_heads": ENCODER.image.heads}
    sizes |= {"window_size": ENCODER.image.window, "img_size": 64}
    save_for_hf(swin, str(tmp_path / "swin"), model_args=sizes, safe_serialization=True)
    RobertaModel(public_roberta_config(ENCODER.text), add_pooling_layer=False).save_pretrained(tmp_path / "roberta")
    return {"swin": str(tmp_path / "swin"), "roberta": str(tmp_path / "roberta")}


@pytest.mark.parametrize("preset", ["tiny", "small", "base"])
def test_naming_public_weights_gives_the_model_their_sizes(preset, public):
    config = model_config(ModelSettings(preset, text_length=30, **public), None)
    sizes = PRESETS[preset]
    image = dataclasses.replace(ENCODER.image, drop_path=sizes.image.drop_path)
    text = dataclasses.replace(ENCODER.text, dropout=sizes.text.dropout)
    assert (config.image, config.text) == (image, text)
    assert config.image_size == (64, 64)
    assert config.fusion_layers == min(sizes.fusion_layers, 3)
    assert config.hidden == sizes.hidden


def test_naming_one_tower_leaves_the_other_to_the_preset(public):
    by_image = model_config(ModelSettings("small", swin=public["swin"]), None)
    assert (by_image.image.embed_dim, by_image.text) == (8, SMALL.text)
    by_text = model_config(ModelSettings("small", text_length=30, roberta=public["roberta"]), None)
    assert (by_text.image, by_text.text.hidden, by_text.image_size) == (SMALL.image, 32, (224, 224))


def test_windows_of_named_weights_grow_with_the_image_unless_they_are_given(public):
    swin = public["swin"]
    assert model_config(ModelSettings("small", image_size=128, swin=swin), None).image.window == 4
    assert model_config(ModelSettings("small", image_size=128, window=3, swin=swin), None).image.window == 3


@pytest.mark.parametrize(
    ("setting", "value", "theirs"),
    [
        ("embed_dim", 96, "8"),
        ("depths", (2, 2, 6, 2), "(1, 1, 4, 2)"),
        ("text_layers", 12, "6"),
        ("text_heads", 3, "4"),
    ],
)
def test_a_size_against_the_named_weights_is_refused(setting, value, theirs, public):
    settings = ModelSettings("small", text_length=30, **public, **{setting: value})
    with pytest.raises(UserError, match=rf"model\.{setting}=.*have {re.escape(theirs)}; leave model\.{setting} out"):
        model_config(settings, None)


def test_more_fused_layers_than_a_tower_has_are_refused(public):
    assert model_config(ModelSettings("small", text_length=30, fusion_layers=6, **public), None).fusion_layers == 6
    with pytest.raises(UserError, match="fusion_layers=9: must be between 0 and"):
        model_config(ModelSettings("small", text_length=30, fusion_layers=9, **public), None)


def test_a_vocabulary_larger_than_the_weights_have_is_refused(public, tokenizer):
    settings = ModelSettings("small", text_length=30, tokenizer="builtin", **public)
    with pytest.raises(UserError, match=rf"model\.tokenizer=builtin: has {len(tokenizer):,} tokens .* have 60"):
        model_config(settings, tokenizer)


def test_a_run_that_goes_on_keeps_its_towers_where_their_folders_are_gone(public):
    settings = ModelSettings("small", image_size=128, text_length=30, **public)
    begun = model_config(settings, None)
    gone = dataclasses.replace(settings, swin="/gone/swin", roberta="/gone/roberta")
    assert model_config(gone, None, trained=begun) == begun


PRESET_OF = {
    "swin_tiny_patch4_window7_224.ms_in1k": SMALL,
    "swin_base_patch4_window12_384.ms_in22k": PRESETS["base"],
    "swin_large_patch4_window12_384.ms_in22k": LARGE,
}


@pytest.mark.parametrize("name", PRESET_OF)
def test_presets_are_the_sizes_of_the_public_models(name):
    preset = PRESET_OF[name]
    config = model_config(ModelSettings("small", swin=f"timm/{name}"), None)
    assert (config.image, config.image_size) == (preset.image, preset.image_size)


@pytest.mark.parametrize(
    ("name", "preset"), [("distilroberta-base", SMALL), ("roberta-base", PRESETS["base"]), ("roberta-large", LARGE)]
)
def test_known_text_models_need_nothing_fetched(name, preset):
    config = model_config(ModelSettings("base", roberta=name), None)
    assert config.text == preset.text
    assert config.fusion_layers == preset.fusion_layers


def test_every_swin_of_timm_has_sizes():
    """Of the first version; those of the second have no tables of position biases."""
    names = timm.list_models("swin_*")
    assert "swin_s3_base_224" in names
    for name in names:
        config = model_config(ModelSettings("small", swin=name), None)
        with torch.device("meta"):
            theirs = timm.create_model(name, num_classes=0)
        assert config.image_size == theirs.patch_embed.img_size
        assert config.image.dims == tuple(stage["num_chs"] for stage in theirs.feature_info)
        windows = tuple(stage.blocks[0].window_size[0] for stage in theirs.layers)
        assert tuple(map(config.image.window_of, range(4))) == windows


@pytest.mark.parametrize("name", ["swinv2_tiny_window8_256", "resnet18"])
def test_what_is_no_swin_of_the_first_version_is_refused(name):
    with pytest.raises(UserError, match=rf"model\.swin={name}: no weights of a Swin"):
        model_config(ModelSettings("small", swin=name), None)
