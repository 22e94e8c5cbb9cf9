"""The head: what it says of every anchor and token."""

import math

import pytest
import torch
import torch.nn.functional as F

from fiber_cli.model.detector.head import TokenHead, flatten_levels

SIDES = ((8, 10), (4, 5), (2, 3), (1, 2), (1, 1))


def levels(channels: int = 16) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, channels, *side) for side in SIDES]


@pytest.fixture
def head() -> TokenHead:
    torch.manual_seed(0)
    return TokenHead(16, 0, text_dim=12).eval()


def test_levels_are_laid_side_by_side_row_by_row():
    flat = flatten_levels(levels())
    assert flat.shape == (2, 80 + 20 + 6 + 2 + 1, 16)
    assert torch.equal(flat[:, 80 + 7], levels()[1][:, :, 1, 2])


@torch.no_grad()
def test_output_by_its_definition(head):
    head.scales[1].fill_(3.0)
    text = torch.randn(2, 7, 12)
    text[1, 5:] = 0  # padding
    out = head(levels(), text)
    assert out.sizes == SIDES
    assert out.deltas.shape == (2, 109, 4)
    assert out.centerness.shape == (2, 109)
    second = levels()[1]
    torch.testing.assert_close(out.deltas[:, 80:100], 3 * flatten_levels([head.box(second)]))
    torch.testing.assert_close(out.centerness[:, 80:100], flatten_levels([head.centerness(second)])[..., 0])
    tokens = head.text_proj(F.normalize(text, dim=-1) / 2)
    bias = F.normalize(text, dim=-1) @ head.bias_lang + head.bias0
    torch.testing.assert_close(out.logits, flatten_levels(levels()) @ tokens.mT + bias[:, None])


@torch.no_grad()
def test_tokens_start_improbable_and_log_scale_sharpens():
    """The fresh head's logits are about the bias of a probability of 0.01; log_scale scales what is added to it."""
    text = torch.randn(2, 7, 12)
    plain, sharp = (TokenHead(16, 0, text_dim=12, log_scale=scale) for scale in (0.0, -1.0))
    sharp.load_state_dict(plain.state_dict() | {"log_scale": torch.tensor([-1.0])})
    bias = math.log(0.01 / 0.99)
    alone, scaled = plain(levels(), text).logits - bias, sharp(levels(), text).logits - bias
    assert alone.mean().abs() < 0.5
    torch.testing.assert_close(scaled, alone * math.e, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_output_is_float32_and_bounded_under_autocast(head):
    head.bias0.fill_(1e6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = head(levels(), torch.randn(2, 7, 12))
    assert {x.dtype for x in out[:3]} == {torch.float32}
    assert out.logits.max() == 50000
