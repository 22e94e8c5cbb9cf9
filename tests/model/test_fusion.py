"""The shared encoder against timm, transformers and its own invariants, on tiny sizes."""

import dataclasses

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import RobertaConfig, RobertaModel

from fiber_cli.checkpoints import published as convert
from fiber_cli.errors import UserError
from fiber_cli.model.config import BASE, TINY, FiberConfig, ImageConfig, TextConfig
from fiber_cli.model.fusion import DecoderCache, FusedEncoder, ImageStem, TextStem
from fiber_cli.model.swin import WindowAttention, relative_position_index, shift_mask
from fiber_cli.checkpoints.backbones import load_roberta, load_swin
from fiber_cli.tasks.coarse.task import CoarseTask

SMALL = FiberConfig(
    image=ImageConfig(embed_dim=8, depths=(1, 1, 4, 2), heads=(1, 2, 4, 8), window=2, drop_path=0.0),
    text=TextConfig(layers=6, hidden=32, heads=4, intermediate=64, vocab=60, positions=40, dropout=0.0),
    fusion_layers=4,
    hidden=24,
    image_size=(64, 64),
)


def encoder(config: FiberConfig = SMALL, gates: float = 0.5, **kwargs) -> FusedEncoder:
    torch.manual_seed(0)
    model = FusedEncoder(config, **kwargs).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(".alpha"):
            torch.nn.init.constant_(parameter, gates)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def inputs(config: FiberConfig = SMALL, lengths=(9, 4), size=(64, 64)):
    g = torch.Generator().manual_seed(1)
    pixels = torch.randn(len(lengths), 3, *size, generator=g)
    ids = torch.randint(4, config.text.vocab, (len(lengths), max(lengths)), generator=g)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return pixels, ids.masked_fill(~mask, config.text.pad_id), mask


def test_pairing_follows_from_the_depths():
    assert BASE.fused_pairs == ((2, 14, 6), (2, 15, 7), (2, 16, 8), (2, 17, 9), (3, 0, 10), (3, 1, 11))
    assert dataclasses.replace(BASE, fusion_layers=0).fused_pairs == ()
    with pytest.raises(UserError, match="fusion_layers=13"):
        dataclasses.replace(BASE, fusion_layers=13)
    assert FiberConfig.from_dict(TINY.to_dict()) == TINY


def test_base_has_the_published_parameters():
    """spec: 281,897,191 in all, fusion 26,004,498 = image side 12,607,494 + text side 13,397,004. The published model
    carries parameters that it never reads; ours does not, so they are added from convert's list."""
    with torch.device("meta"):
        task = CoarseTask(BASE)
    sizes = {name: p.numel() for name, p in task.named_parameters()}
    unused = convert.unused_shapes(BASE, sizes)
    unused_sizes = {name: torch.Size(shape).numel() for name, shape in unused.items()}
    image = sum(n for name, n in sizes.items() if name.startswith("encoder.image") and ".cross." in name)
    text = sum(n for name, n in sizes.items() if name.startswith("encoder.text") and ".cross." in name)
    unused_text = sum(n for name, n in unused_sizes.items() if "t2i" in name)
    assert image == 12_607_494
    assert text + unused_text == 13_397_004
    assert image + text + unused_text == 26_004_498
    assert sum(sizes.values()) + sum(unused_sizes.values()) == 281_897_191


def test_fusion_costs_no_more_than_published():
    """spec: 9.78 GFLOPs a pair at 384 pixels and 40 tokens, 2 per multiply-add."""
    with torch.device("meta"):
        model = FusedEncoder(BASE)
        image = ImageStem(torch.randn(1, 24, 24, 512))
        text = TextStem(torch.randn(1, 40, 768), torch.ones(1, 40, dtype=torch.bool))
    with FlopCounterMode(display=False) as fused:
        model.fuse(image, text)
    with FlopCounterMode(display=False) as alone:
        model.image_top(image)
        model.text_top(text)
    cost = fused.get_total_flops() - alone.get_total_flops()
    assert 9.0e9 < cost <= 9.785e9


def test_swin_equals_timm(tmp_path):
    reference = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=2, embed_dim=8, depths=(1, 1, 4, 2),
        num_heads=(1, 2, 4, 8), num_classes=0, drop_path_rate=0.0,
    ).eval()  # fmt: skip
    torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
    model = encoder()
    load_swin(model, str(tmp_path))
    pixels, _, _ = inputs()
    features = model.image.norm(model.image_top(model.image_stem(pixels)))
    torch.testing.assert_close(features, reference.forward_features(pixels), atol=1e-5, rtol=1e-5)


def test_roberta_equals_transformers(tmp_path):
    text = SMALL.text
    hf = RobertaConfig(
        vocab_size=text.vocab, hidden_size=text.hidden, num_hidden_layers=text.layers, pad_token_id=1,
        num_attention_heads=text.heads, intermediate_size=text.intermediate, type_vocab_size=1,
        max_position_embeddings=text.positions, layer_norm_eps=text.norm_eps,
    )  # fmt: skip
    torch.manual_seed(0)
    reference = RobertaModel(hf, add_pooling_layer=False).eval()
    reference.save_pretrained(tmp_path)
    model = encoder()
    load_roberta(model, str(tmp_path))
    _, ids, mask = inputs()
    expected = reference(ids, attention_mask=mask.long()).last_hidden_state
    actual = model.text_top(model.text_stem(ids, mask))
    torch.testing.assert_close(actual[mask], expected[mask], atol=1e-5, rtol=1e-5)


def test_missing_pretrained_weights_are_explained(tmp_path):
    model = encoder()
    with pytest.raises(UserError, match="model.swin=no/such: neither a file"):
        load_swin(model, "no/such")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds none of"):
        load_roberta(model, str(tmp_path / "empty"))
    torch.save({"layers.0.blocks.0.norm1.weight": torch.ones(9)}, tmp_path / "other.bin")
    with pytest.raises(UserError, match=r"model\.swin"):
        load_swin(model, str(tmp_path / "other.bin"))


@torch.no_grad()
def test_gates_at_zero_leave_each_tower_alone():
    model = encoder(gates=0.0)
    pixels, ids, mask = inputs()
    image, text = model.image_stem(pixels), model.text_stem(ids, mask)
    fused = model.fuse(image, text, last_norm=True)
    torch.testing.assert_close(fused.pyramid[-1], model.image_top(image))
    torch.testing.assert_close(fused.text, model.text_top(text))
    opened = encoder(gates=0.5).fuse(image, text, last_norm=True)
    assert (opened.text - fused.text).abs().max() > 1e-2
    assert (opened.pyramid[-1] - fused.pyramid[-1]).abs().max() > 1e-2


@torch.no_grad()
def test_batched_equals_single_under_padding():
    model = encoder()
    pixels, ids, mask = inputs(lengths=(9, 4))
    together = model.fuse(model.image_stem(pixels), model.text_stem(ids, mask))
    for row, length in enumerate((9, 4)):
        alone = model.fuse(
            model.image_stem(pixels[row : row + 1]),
            model.text_stem(ids[row : row + 1, :length], mask[row : row + 1, :length]),
        )
        torch.testing.assert_close(together.text[row, :length], alone.text[0], atol=1e-5, rtol=1e-5)
        for level, single in zip(together.pyramid, alone.pyramid):
            torch.testing.assert_close(level[row], single[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pyramid_of_any_image_shape():
    model = encoder()
    pixels, ids, mask = inputs(size=(96, 160))
    fused = model.fuse(model.image_stem(pixels), model.text_stem(ids, mask))
    assert [tuple(level.shape[1:]) for level in fused.pyramid] == [(24, 40, 8), (12, 20, 16), (6, 10, 32), (3, 5, 64)]
    with pytest.raises(UserError, match="90x64"):
        model.image_stem(torch.zeros(1, 3, 90, 64))


@torch.no_grad()
@pytest.mark.parametrize("layers", [0, 1, 2, 3, 6])
def test_any_number_of_fused_layers(layers):
    config = dataclasses.replace(SMALL, fusion_layers=layers)
    model = encoder(config)
    pixels, ids, mask = inputs()
    image, text = model.image_stem(pixels), model.text_stem(ids, mask)
    top = model.image_top(image)
    assert top.shape == (2, 2, 2, 64)
    fused = model.fuse(image, text)
    assert [level.shape[-1] for level in fused.pyramid] == [8, 16, 32, 64]
    if layers == 0:
        torch.testing.assert_close(fused.pyramid[-1], top)


@torch.no_grad()
def test_skipped_image_output_changes_no_text():
    model = encoder()
    pixels, ids, mask = inputs()
    image, text = model.image_stem(pixels), model.text_stem(ids, mask)
    full, partial = model.fuse(image, text), model.fuse(image, text, image_output=False)
    torch.testing.assert_close(partial.text, full.text, atol=0, rtol=0)
    assert len(partial.pyramid) == len(full.pyramid) - 1


def test_activation_checkpointing_keeps_gradients():
    model = encoder().train()
    pixels, ids, mask = inputs()
    gradients = []
    for on in (False, True):
        model.checkpoint_activations = on
        model.zero_grad()
        fused = model.fuse(model.image_stem(pixels), model.text_stem(ids, mask))
        (fused.text.square().mean() + fused.pyramid[-1].square().mean()).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 100
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_beams_share_their_image_memory():
    """K rows an image with one cache give what repeating the image K times gives, also after a reorder."""
    model = encoder(captioning=True)
    pixels, ids, _ = inputs(lengths=(8, 8))
    memory = model.image_top(model.image_stem(pixels)).flatten(1, 2)
    beams = torch.cat([ids, ids.flip(1)], 0)[[0, 2, 1, 3]]
    expected = model.decode(memory.repeat_interleave(2, 0), beams)
    cache = DecoderCache(SMALL.text.layers)
    model.decode(memory, beams[:, :5], cache)
    swap = torch.tensor([1, 0, 3, 2])
    cache.reorder(swap)
    actual = model.decode(memory, beams[swap, 5:], cache)
    torch.testing.assert_close(actual, expected[swap, 5:], atol=1e-5, rtol=1e-5)


def test_shift_mask_by_hand():
    """4x4 map, window 2, shift 1: the last window of each row and column joins two borders."""
    mask = shift_mask((4, 4), (2, 2), (1, 1))
    assert mask.shape == (4, 4, 4)
    assert torch.equal(mask[0], torch.zeros(4, 4))
    apart = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]) * -100.0
    assert torch.equal(mask[1], apart)
    assert torch.equal(mask[3], (1 - torch.eye(4)) * -100.0)
    index = relative_position_index(2, 2, 2)
    assert index[0, 0] == 4 and index[0, 3] == 0 and index[3, 0] == 8 and index[0, 1] == 3


def test_small_maps():
    """A map smaller than the window is one window of its own size, its bias read from the table's middle; with
    `fixed_window` it is padded and shifted as in the published fine stage."""
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, window=4, shift=2, fixed_window=False)
    x = torch.randn(1, 3, 6, 8)
    small = WindowAttention(8, 2, window=3, shift=1, fixed_window=False)
    small.load_state_dict(attention.state_dict() | {"relative_position_bias_table": torch.zeros(25, 2)})
    with torch.no_grad():
        table = attention.relative_position_bias_table.view(7, 7, 2)
        small.relative_position_bias_table.copy_(table[1:-1, 1:-1].reshape(25, 2))
        torch.testing.assert_close(attention(x[:, :, :3]), small(x[:, :, :3]))
        assert attention(x).shape == x.shape
        fixed = WindowAttention(8, 2, window=4, shift=0, fixed_window=True)
        fixed.load_state_dict(attention.state_dict())
        padded = torch.nn.functional.pad(x, (0, 0, 0, 2, 0, 1))
        torch.testing.assert_close(fixed(x), fixed(padded)[:, :3, :6])
        assert (fixed(x[:, :, :3]) - attention(x[:, :, :3])).abs().max() > 1e-3
