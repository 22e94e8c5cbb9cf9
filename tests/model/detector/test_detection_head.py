"""What all heads share: what regions are to name, and how they are aligned with tokens."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fiber_cli.errors import UserError
from fiber_cli.model.config import TINY, DetectorConfig
from fiber_cli.model.detector.detection_head import DetectionHead, Truth
from fiber_cli.model.detector.detector import HEADS, Detector

CHANNELS = 32


def make_head(kind: str) -> DetectionHead:
    torch.manual_seed(0)
    return HEADS[kind](DetectorConfig(channels=CHANNELS, head=kind), TINY.text).eval()


def test_regions_name_the_tokens_of_another_box():
    names = torch.tensor([[1, 0, 0, 0], [0, 2, 1, 0]])
    truth = Truth(torch.ones(1, 4, dtype=torch.bool), [torch.zeros(2, 4)], [names])
    matched = torch.tensor([1, -1, 0, -2])
    expected = [[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert truth.tokens(0, matched).int().tolist() == expected
    published = truth._replace(last_token_unmatched=True).tokens(0, matched)
    assert published.int().tolist() == [[0, 1, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]]


@torch.no_grad()
@pytest.mark.parametrize("kind", HEADS)
def test_a_head_aligns_otherwise(kind):
    """By the definition: products with projected, normalised tokens, and a bias of each token."""
    head = make_head(kind)
    nn.init.normal_(head.bias_lang)
    head.log_scale.fill_(-0.5)
    regions, text = torch.randn(2, 5, CHANNELS), torch.randn(2, 3, TINY.text.hidden)
    unit = F.normalize(text, dim=-1)
    expected = torch.einsum("bnc,blc->bnl", regions, head.text_proj(unit / 2))
    expected = expected * torch.tensor(0.5).exp() + (unit @ head.bias_lang)[:, None] - torch.tensor(99.0).log()
    torch.testing.assert_close(head.align(regions, text), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", HEADS)
def test_own_parameters_are_mixed_up_with_those_of_all_heads(kind):
    head = make_head(kind)
    shared = {name for name, _ in head.named_parameters() if not name.startswith(type(head).OWN)}
    assert shared == {"text_proj.weight", "text_proj.bias", "log_scale", "bias_lang", "bias0"}
    detector = Detector(TINY, DetectorConfig(channels=CHANNELS, head=kind))
    assert not [name for name, _ in detector.named_parameters() if name.startswith(detector.of_other_heads)]
    for other in set(HEADS) - {kind}:
        theirs = dict(Detector(TINY, DetectorConfig(channels=CHANNELS, head=other)).named_parameters())
        unknown = theirs.keys() - dict(detector.named_parameters()).keys()
        assert unknown
        assert all(name.startswith(detector.of_other_heads) for name in unknown)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"head": "retinanet", "fusion": "deep"},
            "retinanet with task.head_fusion=deep: .* set task.head_fusion to none",
        ),
        ({"head": "faster_rcnn", "fusion": "deep"}, "faster_rcnn with task.head_fusion=deep"),
        ({"head": "faster_rcnn", "blocks": 2}, "faster_rcnn with task.blocks=2: .*leave task.blocks out, or at 6"),
        ({"head": "atss", "sampled_regions": 64}, "atss with task.sampled_regions=64: only faster_rcnn samples"),
        ({"head": "retinanet", "sampled_regions": 64}, "set task.head to faster_rcnn"),
        ({"head": "fcos"}, "head='fcos': must be one of atss, retinanet, faster_rcnn"),
    ],
)
def test_settings_of_another_head_are_taken(settings, told):
    with pytest.raises(UserError, match=told):
        DetectorConfig(channels=CHANNELS, **settings)
