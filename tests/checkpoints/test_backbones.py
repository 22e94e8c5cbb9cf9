"""Starting weights: the towers compute what timm's Swin and transformers' RoBERTa do, and odd files are explained."""

import dataclasses
import json

import pytest
import torch
from public_backbones import public_roberta_config, public_swin
from small_encoder import SMALL
from transformers import RobertaModel

from fiber_cli.checkpoints.backbone_sizes import roberta_sizes, swin_sizes
from fiber_cli.checkpoints.backbones import load_roberta, load_swin
from fiber_cli.errors import UserError
from fiber_cli.model.fusion import FusedEncoder


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return FusedEncoder(SMALL).eval()


def test_swin_equals_timm(encoder, tmp_path):
    reference = public_swin(SMALL.image, classes=0)
    torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
    load_swin(encoder, str(tmp_path))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    features = encoder.image.norm(encoder.image_top(encoder.image_stem(pixels)))
    torch.testing.assert_close(features, reference.forward_features(pixels), atol=1e-5, rtol=1e-5)


def test_windows_that_differ_between_stages_equal_timm_s(tmp_path):
    """As Swin-S3 has them."""
    image = dataclasses.replace(SMALL.image, window=2, stage_windows=(2, 4, 4, 2))
    torch.manual_seed(0)
    encoder = FusedEncoder(dataclasses.replace(SMALL, image=image)).eval()
    reference = public_swin(dataclasses.replace(image, window=image.stage_windows), classes=0)
    torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
    load_swin(encoder, str(tmp_path))
    assert swin_sizes(str(tmp_path), SMALL.image) == image
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    features = encoder.image.norm(encoder.image_top(encoder.image_stem(pixels)))
    torch.testing.assert_close(features, reference.forward_features(pixels), atol=1e-5, rtol=1e-5)


def test_roberta_equals_transformers(encoder, tmp_path):
    reference = RobertaModel(public_roberta_config(SMALL.text), add_pooling_layer=False).eval()
    reference.save_pretrained(tmp_path)
    load_roberta(encoder, str(tmp_path))
    mask = torch.arange(9)[None] < torch.tensor([[9], [4]])
    ids = torch.randint(4, SMALL.text.vocab, (2, 9), generator=torch.Generator().manual_seed(1)).masked_fill(~mask, 1)
    expected = reference(ids, attention_mask=mask.long()).last_hidden_state
    actual = encoder.text_top(encoder.text_stem(ids, mask))
    torch.testing.assert_close(actual[mask], expected[mask], atol=1e-5, rtol=1e-5)


def test_missing_pretrained_weights_are_explained(encoder, tmp_path):
    with pytest.raises(UserError, match=r"model\.swin=/no/such: neither a file"):
        load_swin(encoder, "/no/such")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds none of"):
        load_roberta(encoder, str(tmp_path / "empty"))


def test_weights_of_another_model_are_explained(encoder, tmp_path):
    torch.save({"layers.0.blocks.0.norm1.weight": torch.ones(9)}, tmp_path / "other.bin")
    with pytest.raises(UserError, match=r"Swin weights .*other.bin \(model\.swin\): the weights do not fit"):
        load_swin(encoder, str(tmp_path / "other.bin"))
    torch.save({"conv1.weight": torch.ones(9)}, tmp_path / "other.bin")
    with pytest.raises(UserError, match=r"no tensor of a known name in it; model\.roberta wants"):
        load_roberta(encoder, str(tmp_path / "other.bin"))
    torch.save({}, tmp_path / "other.bin")
    with pytest.raises(UserError, match="holds no state dict"):
        load_roberta(encoder, str(tmp_path / "other.bin"))


@pytest.fixture
def roberta_folder(tmp_path):
    RobertaModel(public_roberta_config(SMALL.text), add_pooling_layer=False).save_pretrained(tmp_path)
    return tmp_path


def test_sizes_of_weights_without_a_configuration_are_read_from_them(roberta_folder):
    (roberta_folder / "config.json").unlink()
    preset = dataclasses.replace(SMALL.text, layers=2, intermediate=8, vocab=9, positions=9)
    assert roberta_sizes(str(roberta_folder), preset) == SMALL.text
    assert roberta_sizes(str(roberta_folder / "model.safetensors"), preset) == SMALL.text
    with pytest.raises(UserError, match=r"width 32 without a config\.json do not tell their attention heads"):
        roberta_sizes(str(roberta_folder), dataclasses.replace(preset, hidden=64))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("model_type", "bert", "a model of type 'bert'"),
        ("hidden_act", "relu", "hidden_act 'relu'; the text tower has 'gelu'"),
        ("num_attention_heads", 5, "32 is not divisible by its 5"),
        ("num_hidden_layers", "six", "layers='six'"),
        ("hidden_size", None, "hidden=None"),
    ],
)
def test_a_text_model_of_another_form_is_refused(roberta_folder, setting, value, message):
    file = roberta_folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {setting: value}))
    with pytest.raises(UserError, match=rf"model\.roberta=.*{message}"):
        roberta_sizes(str(roberta_folder), SMALL.text)
