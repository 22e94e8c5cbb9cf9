"""The detector on a fused pass."""

import dataclasses

import pytest
import torch

from fiber_cli.errors import UserError
from fiber_cli.model.config import TINY, DetectorConfig
from fiber_cli.model.detector.detector import Detector
from fiber_cli.model.fusion import Fused


def test_strides_that_do_not_fit():
    patch_4 = dataclasses.replace(TINY, image=dataclasses.replace(TINY.image, patch=4))
    with pytest.raises(UserError, match=r"strides \(4, 8, 16\)"):
        Detector(patch_4, DetectorConfig(channels=32))


@torch.no_grad()
def test_the_last_three_stages_are_read_and_padding_is_not():
    torch.manual_seed(0)
    detector = Detector(TINY, DetectorConfig(channels=32, blocks=1)).eval()
    maps = [torch.randn(2, side, side, dim) for side, dim in zip((16, 8, 4), TINY.image.dims, strict=True)]
    text, mask = torch.randn(2, 5, TINY.text.hidden), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    out = detector(Fused(tuple(maps), text, mask))
    assert out.sizes == ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1))
    assert out.logits.shape == (2, 341, 5)
    text[1, 3:] = 9.0
    below = torch.randn(2, 32, 32, 3)
    again = detector(Fused((below, *maps), text, mask))
    for first, second in zip(out[:3], again[:3], strict=True):
        assert torch.equal(first, second)
