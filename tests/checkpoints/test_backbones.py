"""Starting weights: the towers compute what timm's Swin and transformers' RoBERTa do, and odd files are explained."""

import pytest
import torch
from public_backbones import public_roberta_config, public_swin
from small_encoder import SMALL
from transformers import RobertaModel

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
    with pytest.raises(UserError, match=r"model\.swin=no/such: neither a file"):
        load_swin(encoder, "no/such")
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
