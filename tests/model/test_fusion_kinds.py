"""Every way of fusing against the invariants that all of them have: merged attention, without gates, on top, none."""

import dataclasses

import pytest
import torch
from small_encoder import SMALL, make_encoder, make_inputs

from fiber_cli.errors import UserError
from fiber_cli.model.captioner import Captioner
from fiber_cli.model.config import BASE, FiberConfig
from fiber_cli.model.decoder_cache import DecoderCache, PairedMemory
from fiber_cli.model.fusion import FusedEncoder, FusedPass, ImageStem, TextStem
from fiber_cli.model.heads import MlmHead, PairPooler

KINDS = {
    "co-attention": {},
    "merged attention": {"fusion_attention": "merged"},
    "co-attention without gates": {"fusion_gate": False},
    "merged attention without gates": {"fusion_attention": "merged", "fusion_gate": False},
    "on top": {"fusion": "top", "fusion_layers": 2},
    "none": {"fusion_layers": 0},
    "one layer": {"fusion_layers": 1},
    "all layers": {"fusion_layers": 6},
    "all layers merged": {"fusion_layers": 6, "fusion_attention": "merged"},
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def config_of(kind: str) -> FiberConfig:
    return dataclasses.replace(SMALL, **KINDS[kind])


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_merged_attention_with_shut_gates_is_not_the_towers_alone(size):
    """Also on maps of many windows, shifted ones among them."""
    config = config_of("merged attention")
    model = make_encoder(config, gates=0.0)
    pixels, ids, mask = make_inputs(size=size)
    image, text = model.image_stem(pixels), model.text_stem(ids, mask)
    fused = model.fuse(image, text, last_norm=True)
    torch.testing.assert_close(fused.pyramid[-1], model.image_top(image))
    torch.testing.assert_close(fused.text, model.text_top(text))
    opened = make_encoder(config).fuse(image, text, last_norm=True)
    assert (opened.text - fused.text).abs().max() > 1e-2
    assert (opened.pyramid[-1] - fused.pyramid[-1]).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("attention", ["co", "merged"])
def test_no_gate_is_not_an_open_gate(attention):
    gated = make_encoder(dataclasses.replace(SMALL, fusion_attention=attention), gates=1.0)
    plain = make_encoder(dataclasses.replace(SMALL, fusion_attention=attention, fusion_gate=False))
    gates = {name for name, _ in gated.named_parameters() if name.endswith(".alpha")}
    assert len(gates) == 2 * SMALL.fusion_layers
    weights = {name: value for name, value in gated.state_dict().items() if name not in gates}
    plain.load_state_dict(weights)
    pixels, ids, mask = make_inputs()
    passes = []
    for model in (gated, plain):
        passes.append(model.fuse(model.image_stem(pixels), model.text_stem(ids, mask)))
    torch.testing.assert_close(passes[1].text, passes[0].text, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(passes[1].pyramid[-1], passes[0].pyramid[-1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@each_kind
def test_a_batch_differs_from_its_rows(kind):
    """Padding is seen by nobody, and rows do not see each other."""
    model = make_encoder(config_of(kind))
    pixels, ids, mask = make_inputs(lengths=(9, 4))
    together = model.fuse(model.image_stem(pixels), model.text_stem(ids, mask))
    for row, length in enumerate((9, 4)):
        rows = slice(row, row + 1)
        text = model.text_stem(ids[rows, :length], mask[rows, :length])
        alone = model.fuse(model.image_stem(pixels[rows]), text)
        torch.testing.assert_close(together.text[row, :length], alone.text[0], atol=1e-4, rtol=1e-4)
        for level, single in zip(together.pyramid, alone.pyramid, strict=True):
            torch.testing.assert_close(level[row], single[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
@each_kind
def test_texts_that_share_an_image_get_other_numbers(kind):
    """K texts an image, first token and mean alone, or without an image output, against the plain pass."""
    model = make_encoder(config_of(kind))
    pixels, ids, mask = make_inputs(lengths=(9, 3, 5, 7, 2, 9))
    image, text = model.image_stem(pixels[:2]), model.text_stem(ids, mask)
    repeated = ImageStem(image.map.repeat_interleave(3, 0), tuple(x.repeat_interleave(3, 0) for x in image.earlier))
    whole, shared = model.fuse(repeated, text), model.fuse(image, text)
    torch.testing.assert_close(shared.text, whole.text, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shared.pyramid[-1], whole.pyramid[-1], atol=1e-4, rtol=1e-4)
    pooled = model.fuse(image, text, pooled=True)
    mean = whole.pyramid[-1].mean((1, 2), keepdim=True)
    torch.testing.assert_close(pooled.pyramid[-1], mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pooled.text, whole.text[:, :1], atol=1e-4, rtol=1e-4)
    without_image = model.fuse(repeated, text, image_output=False)
    torch.testing.assert_close(without_image.text, whole.text)


#: Passes that want different things, of texts of different lengths: settings of `fuse` → lengths.
TOGETHER = (({"image_output": False}, (9, 4)), ({"pooled": True}, (5, 3, 5)), ({"last_norm": True}, (7,)))


@torch.no_grad()
@pytest.mark.parametrize("shares_first_pair", [True, False])
@each_kind
def test_passes_together_are_not_each_by_itself(kind, shares_first_pair):
    model = make_encoder(config_of(kind))
    passes, alone = [], []
    for settings, lengths in TOGETHER:
        pixels, ids, mask = make_inputs(lengths=lengths)
        image, text = model.image_stem(pixels), model.text_stem(ids, mask)
        if shares_first_pair:
            image = model.with_first_pair(image)
        passes.append(FusedPass(image, text, **settings))
        alone.append(model.fuse(image, text, **settings))
    for together, single in zip(model.fuse_together(passes), alone, strict=True):
        length = single.text.shape[1]
        torch.testing.assert_close(together.text[:, :length], single.text, atol=1e-5, rtol=1e-5)
        for level, expected in zip(together.pyramid, single.pyramid, strict=True):
            torch.testing.assert_close(level, expected, atol=1e-5, rtol=1e-5)
    assert model.fuse_together([]) == []


@torch.no_grad()
@each_kind
def test_a_stem_without_earlier_stages_cannot_be_fused(kind):
    """Pre-training hands on the map alone, also where nothing is fused."""
    config = config_of(kind)
    model = make_encoder(config)
    pixels, ids, mask = make_inputs()
    image = model.image_stem(pixels)
    fused = model.fuse(ImageStem(image.map), model.text_stem(ids, mask))
    assert fused.pyramid[-1].shape[-1] == config.fused_image_dim
    assert fused.text.shape[-1] == config.fused_text_dim
    assert PairPooler(config)(fused.pyramid[-1], fused.text).shape == (2, 2 * config.hidden)


@torch.no_grad()
@each_kind
def test_text_and_image_do_not_see_each_other(kind):
    if kind == "none":
        pytest.skip("they do not")
    model = make_encoder(config_of(kind))
    pixels, ids, mask = make_inputs(lengths=(9, 9))
    image, text = model.image_stem(pixels), model.text_stem(ids, mask)
    fused = model.fuse(image, text)
    other_image = ImageStem(image.map.flip(0), tuple(stage.flip(0) for stage in image.earlier))
    other_text = TextStem(text.tokens.flip(0), text.mask)
    assert (model.fuse(other_image, text).text - fused.text).abs().max() > 1e-3
    assert (model.fuse(image, other_text).pyramid[-1] - fused.pyramid[-1]).abs().max() > 1e-3


@each_kind
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_parameter_gets_no_gradient(kind, checkpointing):
    model = make_encoder(config_of(kind)).train()
    model.checkpoint_activations = checkpointing
    pixels, ids, mask = make_inputs()
    image = model.image_stem(pixels)
    fused = model.fuse(image, model.text_stem(ids, mask), last_norm=True)
    # Means of normalised numbers would have no gradient.
    loss = fused.text.pow(3).mean() + fused.pyramid[-1].pow(3).mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("image.norm.") and kind != "on top":
            continue  # the dual encoder's
        assert parameter.grad is not None, name
        # The logits of a query change by the same amount with a key's bias.
        assert parameter.grad.abs().max() > 0 or name.endswith("key.bias"), name


@torch.no_grad()
@pytest.mark.parametrize("form", ["seq2seq", "fused"])
@each_kind
def test_tokens_one_by_one_differ_from_a_whole_caption(kind, form):
    config = config_of(kind)
    if form == "fused" and not config.fused_pairs:
        with pytest.raises(UserError, match=r"task\.form to seq2seq"):
            FusedEncoder(config, captioning=True, paired_memory=True)
        return
    torch.manual_seed(0)
    encoder = FusedEncoder(config, captioning=True, paired_memory=form == "fused").eval()
    assert not (form == "fused" and encoder.memory_proj)
    for name, parameter in encoder.named_parameters():
        if name.endswith(".alpha"):
            parameter.fill_(0.5)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    captioner = Captioner(encoder, PairPooler(config), MlmHead(config))
    pixels, ids, _ = make_inputs(lengths=(8, 8, 8, 8))
    memory = captioner.memory(pixels[:2])
    assert isinstance(memory, PairedMemory) == (form == "fused")
    assert len(memory) == 2
    expected = captioner.states(memory, ids)
    cache = DecoderCache(config.decoder_layers)
    steps = [captioner.states(memory, ids[:, i : i + 1], cache=cache) for i in range(8)]
    torch.testing.assert_close(torch.cat(steps, 1), expected, atol=1e-4, rtol=1e-4)
    alone = captioner.states(memory[torch.tensor([1])], ids[2:])
    torch.testing.assert_close(alone, expected[2:], atol=1e-4, rtol=1e-4)
    if kind != "none":
        other = captioner.states(captioner.memory(pixels[1:3]), ids)
        assert (other - expected).abs().max() > 1e-3


@torch.no_grad()
def test_the_fused_form_reads_other_maps_than_a_fused_pass():
    """Of the first fused pair the map of the stem, of later ones that of an image which sees no text: with shut gates
    on the image's side."""
    model = make_encoder(captioning=True)
    model.paired_memory = True
    pixels, _, _ = make_inputs()
    memory = model.memory(model.image_stem(pixels))
    assert isinstance(memory, PairedMemory)
    assert {layer: tuple(read.shape[1:]) for layer, read in memory.layers.items()} == {
        2: (16, 32),
        3: (16, 32),
        4: (4, 64),
        5: (4, 64),
    }
    torch.testing.assert_close(memory.layers[2], model.image_stem(pixels).map.flatten(1, 2))


def test_fusion_of_the_published_size_has_other_parameters_than_the_paper_says():
    """26M in the backbone; 110M on top as METER stacks it (here with the two projections to the joint width)."""
    counts = {}
    for place in ("backbone", "top"):
        with torch.device("meta"):
            model = FusedEncoder(dataclasses.replace(BASE, fusion=place))
        fusion = [
            value.numel()
            for name, value in model.named_parameters()
            if name.startswith("top.") or "cross" in name.split(".")
        ]
        counts[place] = sum(fusion)
    # The published code has an unused LayerNorm in each fused text layer, and unused gates in the six others.
    assert counts["backbone"] == 26_004_498 - 6 * 2 * 768 - 6
    assert 110e6 < counts["top"] < 116e6


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"fusion": "side"}, "fusion='side': must be one of backbone, top"),
        ({"fusion_attention": "self"}, "fusion_attention='self': must be one of co, merged"),
        ({"fusion_gate": 1}, "fusion_gate=1: must be true or false"),
        ({"fusion": "top", "fusion_attention": "merged"}, "leave fusion_attention at co"),
        ({"fusion": "top", "fusion_layers": -1}, "fusion_layers=-1: must be between 0 and 1,000"),
        ({"fusion": "top", "hidden": 22}, "hidden=22 is not divisible by its 4 attention heads"),
    ],
)
def test_a_wrong_fusion_is_taken(wrong, told):
    with pytest.raises(UserError, match=told):
        dataclasses.replace(SMALL, **wrong)
