"""Sizes follow from one another, and those that do not fit are explained."""

import dataclasses
import json

import pytest

from fiber_cli.errors import UserError
from fiber_cli.model.config import BASE, MINI, TINY, DetectorConfig, FiberConfig, ImageConfig, TextConfig


def test_pairing_follows_from_the_depths():
    assert BASE.fused_pairs == ((2, 14, 6), (2, 15, 7), (2, 16, 8), (2, 17, 9), (3, 0, 10), (3, 1, 11))
    assert dataclasses.replace(BASE, fusion_layers=0).fused_pairs == ()


@pytest.mark.parametrize("layers", [-1, 13])
def test_fusion_deeper_than_a_tower_is_refused(layers):
    with pytest.raises(UserError, match=f"fusion_layers={layers}: must be between 0 and .*24.*12"):
        dataclasses.replace(BASE, fusion_layers=layers)


def test_blocks_are_counted_stage_by_stage():
    assert ImageConfig(depths=(1, 2), heads=(1, 1)).block_positions == ((0, 0), (1, 0), (1, 1))
    assert BASE.image.dims == (128, 256, 512, 1024)
    assert BASE.image.strides == (4, 8, 16, 32)
    assert BASE.multiple == MINI.multiple == TINY.multiple == 32


def test_heads_that_do_not_fit_are_named():
    with pytest.raises(UserError, match="name different numbers of stages"):
        FiberConfig(image=ImageConfig(heads=(4, 8)))
    with pytest.raises(UserError, match="text_hidden=50 is not divisible by its 12"):
        FiberConfig(text=TextConfig(hidden=50))
    with pytest.raises(UserError, match="stage 1 channels=256 is not divisible by its 7"):
        FiberConfig(image=ImageConfig(heads=(4, 7, 16, 32)))


@pytest.mark.parametrize("config", [BASE, MINI, TINY], ids=["base", "mini", "tiny"])
def test_json_gives_the_same_config(config):
    assert FiberConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_other_keys_than_the_configs_are_refused():
    values = TINY.to_dict()
    with pytest.raises(TypeError, match="depht"):
        FiberConfig.from_dict(values | {"depht": 3})
    with pytest.raises(TypeError, match="depht"):
        FiberConfig.from_dict(values | {"image": values["image"] | {"depht": 3}})
    del values["image_size"]
    with pytest.raises(KeyError, match="image_size"):
        FiberConfig.from_dict(values)


def test_the_window_grows_with_the_longer_side():
    assert BASE.at_image_size((576, 576)).image.window == 18
    assert BASE.at_image_size((384, 480)).image.window == 15
    assert BASE.at_image_size((32, 32)).image.window == 1
    assert BASE.at_image_size((384, 480)).image_size == (384, 480)
    with pytest.raises(UserError, match="image size 384x400: sides must be multiples of 32"):
        BASE.at_image_size((384, 400))


def test_detector_channels_fill_their_groups():
    with pytest.raises(UserError, match="channels=16"):
        DetectorConfig(channels=16)
