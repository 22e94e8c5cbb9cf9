"""The fused encoder against its own invariants, on tiny sizes."""

import dataclasses

import pytest
import torch
from small_encoder import SMALL, make_encoder, make_inputs
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.coarse_step import count_operations
from fiber_cli.errors import UserError
from fiber_cli.model.config import BASE
from fiber_cli.model.decoder_cache import DecoderCache
from fiber_cli.model.fusion import FusedEncoder, ImageStem, TextStem


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


@torch.no_grad()
def test_gates_at_zero_leave_each_tower_alone():
    model = make_encoder(gates=0.0)
    pixels, ids, mask = make_inputs()
    image, text = model.image_stem(pixels), model.text_stem(ids, mask)
    fused = model.fuse(image, text, last_norm=True)
    torch.testing.assert_close(fused.pyramid[-1], model.image_top(image))
    torch.testing.assert_close(fused.text, model.text_top(text))
    opened = make_encoder(gates=0.5).fuse(image, text, last_norm=True)
    assert (opened.text - fused.text).abs().max() > 1e-2
    assert (opened.pyramid[-1] - fused.pyramid[-1]).abs().max() > 1e-2


@torch.no_grad()
def test_batched_equals_single_under_padding():
    model = make_encoder()
    pixels, ids, mask = make_inputs(lengths=(9, 4))
    together = model.fuse(model.image_stem(pixels), model.text_stem(ids, mask))
    for row, length in enumerate((9, 4)):
        alone = model.fuse(
            model.image_stem(pixels[row : row + 1]),
            model.text_stem(ids[row : row + 1, :length], mask[row : row + 1, :length]),
        )
        torch.testing.assert_close(together.text[row, :length], alone.text[0], atol=1e-5, rtol=1e-5)
        for level, single in zip(together.pyramid, alone.pyramid, strict=True):
            torch.testing.assert_close(level[row], single[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pyramid_of_any_image_shape():
    model = make_encoder()
    pixels, ids, mask = make_inputs(size=(96, 160))
    fused = model.fuse(model.image_stem(pixels), model.text_stem(ids, mask))
    assert [tuple(level.shape[1:]) for level in fused.pyramid] == [(24, 40, 8), (12, 20, 16), (6, 10, 32), (3, 5, 64)]
    with pytest.raises(UserError, match="90x64"):
        model.image_stem(torch.zeros(1, 3, 90, 64))


@torch.no_grad()
@pytest.mark.parametrize("layers", [0, 1, 2, 3, 6])
def test_any_number_of_fused_layers(layers):
    config = dataclasses.replace(SMALL, fusion_layers=layers)
    model = make_encoder(config)
    pixels, ids, mask = make_inputs()
    image, text = model.image_stem(pixels), model.text_stem(ids, mask)
    top = model.image_top(image)
    assert top.shape == (2, 2, 2, 64)
    fused = model.fuse(image, text)
    assert [level.shape[-1] for level in fused.pyramid] == [8, 16, 32, 64]
    if layers == 0:
        torch.testing.assert_close(fused.pyramid[-1], top)


@torch.no_grad()
def test_skipped_image_output_changes_no_text():
    model = make_encoder()
    pixels, ids, mask = make_inputs()
    image, text = model.image_stem(pixels), model.text_stem(ids, mask)
    full, partial = model.fuse(image, text), model.fuse(image, text, image_output=False)
    torch.testing.assert_close(partial.text, full.text, atol=0, rtol=0)
    assert len(partial.pyramid) == len(full.pyramid) - 1


def test_activation_checkpointing_keeps_gradients():
    model = make_encoder().train()
    pixels, ids, mask = make_inputs()
    gradients = []
    for on in (False, True):
        model.checkpoint_activations = on
        model.zero_grad()
        fused = model.fuse(model.image_stem(pixels), model.text_stem(ids, mask))
        (fused.text.square().mean() + fused.pyramid[-1].square().mean()).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) > 100
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_beams_share_their_image_memory():
    """K rows an image with one cache give what repeating the image K times gives, also after a reorder."""
    model = make_encoder(captioning=True)
    pixels, ids, _ = make_inputs(lengths=(8, 8))
    memory = model.image_top(model.image_stem(pixels)).flatten(1, 2)
    beams = torch.cat([ids, ids.flip(1)], 0)[[0, 2, 1, 3]]
    expected = model.decode(memory.repeat_interleave(2, 0), beams)
    cache = DecoderCache(SMALL.text.layers)
    model.decode(memory, beams[:, :5], cache)
    swap = torch.tensor([1, 0, 3, 2])
    cache.reorder(swap)
    actual = model.decode(memory, beams[swap, 5:], cache)
    torch.testing.assert_close(actual, expected[swap, 5:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pooling_heads_get_what_they_would_have_read():
    model = make_encoder()
    pixels, ids, mask = make_inputs()
    image, text = model.image_stem(pixels), model.text_stem(ids, mask)
    full, pooled = model.fuse(image, text), model.fuse(image, text, pooled=True)
    assert pooled.pyramid[-1].shape == (2, 1, 1, 64)
    torch.testing.assert_close(pooled.pyramid[-1], full.pyramid[-1].mean((1, 2), keepdim=True), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pooled.text, full.text[:, :1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_several_texts_of_an_image_share_its_stem():
    model = make_encoder()
    pixels, ids, mask = make_inputs(lengths=(9, 4, 6, 9))
    image, text = model.image_stem(pixels[:2]), model.text_stem(ids, mask)
    repeated = ImageStem(image.map.repeat_interleave(2, 0), tuple(x.repeat_interleave(2, 0) for x in image.earlier))
    shared, expected = model.fuse(image, text), model.fuse(repeated, text)
    torch.testing.assert_close(shared.text, expected.text, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shared.pyramid[-1], expected.pyramid[-1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_real_tokens_alone_are_seen_in_decoding():
    model = make_encoder(captioning=True)
    pixels, ids, _ = make_inputs(lengths=(8, 8))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, 3] = False
    memory = model.image_top(model.image_stem(pixels)).flatten(1, 2)
    other = ids.clone()
    other[:, 3] = 5
    before, after = model.decode(memory, ids, mask=mask), model.decode(memory, other, mask=mask)
    torch.testing.assert_close(after[mask], before[mask])
    torch.testing.assert_close(model.decode(memory, ids[:, :3]), before[:, :3])


def test_captioning_projects_the_memory_where_widths_differ():
    config = dataclasses.replace(SMALL, gate_init=0.25)
    plain, captioning = FusedEncoder(config), FusedEncoder(config, captioning=True)
    # Layers 2 and 3 are fused with the stage before the last, of half the width.
    assert set(captioning.memory_proj) == {"2", "3"}
    assert captioning.memory_proj["2"].weight.shape == (32, 64)
    assert not plain.memory_proj
    gates = [parameter for name, parameter in plain.named_parameters() if name.endswith(".alpha")]
    assert len(gates) == 2 * SMALL.fusion_layers
    assert all(gate == 0.25 for gate in gates)


@torch.no_grad()
def test_fusing_for_a_pooler_gives_the_pooled_numbers_of_the_whole_pass_for_less():
    """K texts an image, first token and mean alone, against the plain pass over repeated images."""
    model = make_encoder()
    pixels, ids, mask = make_inputs(lengths=(9, 3, 5, 7, 2, 9))
    image, text = model.image_stem(pixels[:2]), model.text_stem(ids, mask)
    repeated = ImageStem(image.map.repeat_interleave(3, 0))
    whole = model.fuse(repeated, text)
    short = model.fuse(image, text, pooled=True)
    torch.testing.assert_close(short.pyramid[-1], whole.pyramid[-1].mean((1, 2), keepdim=True), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(short.text, whole.text[:, :1], atol=1e-5, rtol=1e-5)
    shared = model.fuse(image, text)
    torch.testing.assert_close(shared.pyramid[-1], whole.pyramid[-1], atol=1e-5, rtol=1e-5)
    operations = [
        count_operations(lambda: model.fuse(repeated, text)),
        count_operations(lambda: model.fuse(image, text)),
        count_operations(lambda: model.fuse(image, text, pooled=True)),
    ]
    assert operations[0] > operations[1] > operations[2]


@torch.no_grad()
@pytest.mark.parametrize("layers", [0, 4])
def test_the_first_token_alone_is_another_than_among_all(layers):
    model = make_encoder(dataclasses.replace(SMALL, fusion_layers=layers))
    _, ids, mask = make_inputs()
    text = model.text_stem(ids, mask)
    torch.testing.assert_close(model.text_top(text, pooled=True), model.text_top(text)[:, :1], atol=1e-5, rtol=1e-5)
