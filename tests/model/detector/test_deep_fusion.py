"""Deep fusion in the head: what places and tokens see, and what training reaches."""

import dataclasses

import pytest
import torch
from small_encoder import SMALL

from fiber_cli.errors import UserError
from fiber_cli.model.config import BASE, DetectorConfig
from fiber_cli.model.detector.deep_fusion import HEADS, BothWaysAttention, DeepFusion
from fiber_cli.model.detector.detector import Detector
from fiber_cli.model.detector.head import HeadOutput
from fiber_cli.model.fusion import Fused

SIDES = ((8, 10), (4, 5), (2, 3), (1, 2), (1, 1))
CONFIG = dataclasses.replace(SMALL, fusion_layers=0)


def fused_pass(lengths: tuple[int, ...] = (7, 4)) -> Fused:
    torch.manual_seed(1)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    pyramid = [torch.randn(len(lengths), 16 // 2**i, 16 // 2**i, 8 * 2**i) for i in range(4)]
    return Fused(tuple(pyramid), torch.randn(*mask.shape, SMALL.text.hidden), mask)


def make_detector(fusion: str = "deep") -> Detector:
    torch.manual_seed(0)
    return Detector(CONFIG, DetectorConfig(channels=32, blocks=2, drop_block=0.0, fusion=fusion))


def assert_close(out: HeadOutput, expected: HeadOutput) -> None:
    for ours, theirs in zip(out[:3], expected[:3], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_each_direction_has_not_its_own_softmax_over_one_product():
    torch.manual_seed(0)
    look = BothWaysAttention(32, 12, dropout=0.0).eval()
    image, text = torch.randn(1, 5, 32), torch.randn(1, 4, 12)
    mask = torch.tensor([[True, True, True, False]])
    new_image, new_text = look(image, text, mask[:, None, None])
    normed_image, normed_text = look.image_norm(image), look.text_norm(text)
    q = look.query(normed_image)[0].unflatten(1, (HEADS, -1))
    k = look.key(normed_text)[0].unflatten(1, (HEADS, -1))
    scores = torch.einsum("nhd,lhd->hnl", q, k) / q.shape[-1] ** 0.5
    values = look.text_value(normed_text)[0].unflatten(1, (HEADS, -1))
    of_text = torch.einsum("hnl,lhd->nhd", scores[:, :, :3].softmax(2), values[:3]).flatten(1)
    torch.testing.assert_close(new_image[0], normed_image[0] + look.image_out(of_text) / 6)
    values = look.image_value(normed_image)[0].unflatten(1, (HEADS, -1))
    of_image = torch.einsum("hnl,nhd->lhd", scores.softmax(1), values).flatten(1)
    torch.testing.assert_close(new_text[0], normed_text[0] + look.text_out(of_image) / 6)


@torch.no_grad()
def test_a_level_comes_back_as_another():
    torch.manual_seed(0)
    fusion = DeepFusion(32, SMALL.text).eval()
    for parameter in (fusion.both_ways.image_scale, fusion.both_ways.text_scale):
        parameter.zero_()
    levels = [torch.randn(2, 32, *side) for side in SIDES]
    fused, _ = fusion(levels, torch.randn(2, 4, SMALL.text.hidden), torch.ones(2, 4, dtype=torch.bool))
    for level, same in zip(levels, fused, strict=True):
        normed = fusion.both_ways.image_norm(level.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(same, normed)


@torch.no_grad()
def test_a_batch_differs_from_its_rows():
    detector = make_detector().eval()
    fused = fused_pass()
    together = detector(fused)
    for row, length in enumerate((7, 4)):
        rows = slice(row, row + 1)
        alone = detector(
            Fused(tuple(stage[rows] for stage in fused.pyramid), fused.text[rows, :length], fused.mask[rows, :length])
        )
        of_row = HeadOutput(*(x[rows] for x in together[:3]), together.sizes)
        assert_close(of_row._replace(logits=of_row.logits[:, :, :length]), alone)


@torch.no_grad()
def test_boxes_do_not_see_the_text():
    fused = fused_pass()
    other = fused._replace(text=fused.text.flip(0))
    deep, plain = make_detector().eval(), make_detector("none").eval()
    assert (deep(other).deltas - deep(fused).deltas).abs().max() > 1e-5
    torch.testing.assert_close(plain(other).deltas, plain(fused).deltas, atol=0, rtol=0)


def test_a_parameter_of_the_fusion_gets_no_gradient():
    detector = make_detector().train()
    out = detector(fused_pass())
    (out.deltas.pow(2).sum() + out.logits.pow(2).sum()).backward()
    reached = 0
    for name, parameter in detector.head.fusions.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0 or name.endswith("key.bias"), name
        reached += 1
    assert reached > 60


def test_the_head_without_fusion_has_other_weights_than_before():
    names = set(make_detector("none").state_dict())
    assert not [name for name in names if ".fusions." in name]
    assert names < set(make_detector().state_dict())


def test_fusion_of_the_published_size_has_other_parameters_than_in_glip():
    """2,048 channels of attention in 8 heads, and a layer of the text encoder, six times: the paper's 110M is METER's
    and GLIP's."""
    with torch.device("meta"):
        fusion = DeepFusion(256, BASE.text)
    assert fusion.both_ways.query.out_features == 2048
    assert 80e6 < 6 * sum(parameter.numel() for parameter in fusion.parameters()) < 116e6


def test_fusion_on_top_finds_boxes():
    with pytest.raises(UserError, match=r"task\.head_fusion to deep"):
        Detector(dataclasses.replace(SMALL, fusion="top"), DetectorConfig(channels=32))
    with pytest.raises(UserError, match="head_fusion='shallow'"):
        DetectorConfig(fusion="shallow")
