"""Starting weights: the towers compute what timm's Swin and transformers' RoBERTa do, and odd files are explained."""

import pytest
import timm
import torch
from transformers import RobertaConfig, RobertaModel

from fiber_cli.checkpoints.backbones import load_roberta, load_swin
from fiber_cli.errors import UserError
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.model.fusion import FusedEncoder

SMALL = FiberConfig(
    image=ImageConfig(embed_dim=8, depths=(1, 1, 4, 2), heads=(1, 2, 4, 8), window=2, drop_path=0.0),
    text=TextConfig(layers=6, hidden=32, heads=4, intermediate=64, vocab=60, positions=40, dropout=0.0),
    fusion_layers=4,
    hidden=24,
    image_size=(64, 64),
)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return FusedEncoder(SMALL).eval()


def test_swin_equals_timm(encoder, tmp_path):
    reference = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=64,
        window_size=2,
        embed_dim=8,
        depths=(1, 1, 4, 2),
        num_heads=(1, 2, 4, 8),
        num_classes=0,
        drop_path_rate=0.0,
    ).eval()
    torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
    load_swin(encoder, str(tmp_path))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    features = encoder.image.norm(encoder.image_top(encoder.image_stem(pixels)))
    torch.testing.assert_close(features, reference.forward_features(pixels), atol=1e-5, rtol=1e-5)


def test_roberta_equals_transformers(encoder, tmp_path):
    text = SMALL.text
    config = RobertaConfig(
        vocab_size=text.vocab,
        hidden_size=text.hidden,
        num_hidden_layers=text.layers,
        pad_token_id=1,
        num_attention_heads=text.heads,
        intermediate_size=text.intermediate,
        type_vocab_size=1,
        max_position_embeddings=text.positions,
        layer_norm_eps=text.norm_eps,
    )
    reference = RobertaModel(config, add_pooling_layer=False).eval()
    reference.save_pretrained(tmp_path)
    load_roberta(encoder, str(tmp_path))
    mask = torch.arange(9)[None] < torch.tensor([[9], [4]])
    ids = torch.randint(4, text.vocab, (2, 9), generator=torch.Generator().manual_seed(1)).masked_fill(~mask, 1)
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
    for content in ({"conv1.weight": torch.ones(9)}, {}):
        torch.save(content, tmp_path / "other.bin")
        with pytest.raises(UserError, match=r"no tensor of a known name in it; model\.roberta wants"):
            load_roberta(encoder, str(tmp_path / "other.bin"))
