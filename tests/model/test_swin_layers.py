"""The parts of a Swin, against timm's modules: same names, same numbers, same random numbers."""

import pytest
import torch
from timm.layers.mlp import Mlp as TimmMlp
from timm.layers.patch_embed import PatchEmbed as TimmPatchEmbed
from timm.layers.weight_init import trunc_normal_
from timm.models.swin_transformer import PatchMerging as TimmPatchMerging
from torch import nn

from fiber_cli.model import linear
from fiber_cli.model.swin_layers import Mlp, PatchEmbed, PatchMerging, truncated_normal


@pytest.fixture(autouse=True)
def products_of_pytorch(monkeypatch):
    """Bits are compared, and timm's modules know PyTorch's products alone."""
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: False)


def made_alike(make_ours, make_theirs):
    """Ours and theirs, each made after the same seed; their weights are the same, by name."""
    torch.manual_seed(0)
    ours = make_ours()
    after_ours = torch.rand(1)
    torch.manual_seed(0)
    theirs = make_theirs()
    assert torch.equal(after_ours, torch.rand(1)), "another number of random numbers"
    own, other = ours.state_dict(), theirs.state_dict()
    assert list(own) == list(other)
    assert all(torch.equal(own[name], other[name]) for name in own)
    return ours, theirs


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (3, 5)])
@pytest.mark.parametrize("patch", [4, 8])
def test_patches_differ_from_timm_s(patch, size):
    ours, theirs = made_alike(
        lambda: PatchEmbed(patch, 24),
        lambda: TimmPatchEmbed(None, patch, 3, 24, norm_layer=nn.LayerNorm, output_fmt="NHWC", dynamic_img_pad=True),
    )
    pixels = torch.rand(2, 3, *size)
    assert torch.equal(ours(pixels), theirs(pixels))


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1)])
def test_merged_patches_differ_from_timm_s(size):
    ours, theirs = made_alike(lambda: PatchMerging(8, 20), lambda: TimmPatchMerging(8, 20))
    x = torch.rand(2, *size, 8)
    assert torch.equal(ours(x), theirs(x))


def test_the_mlp_differs_from_timm_s():
    ours, theirs = made_alike(lambda: Mlp(12, 30), lambda: TimmMlp(12, 30))
    x = torch.rand(2, 3, 4, 12)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("std", [0.02, 0.5])
def test_tables_start_with_other_numbers_than_timm_s(std):
    torch.manual_seed(3)
    ours = truncated_normal(40, 6, std=std)
    torch.manual_seed(3)
    theirs = trunc_normal_(torch.empty(40, 6), std=std)
    assert torch.equal(ours, theirs)
    assert ours.abs().max() <= 2


def test_no_number_lies_beyond_two():
    torch.manual_seed(0)
    values = truncated_normal(20_000, std=2.0)
    assert values.abs().max() <= 2
    assert values.abs().max() > 1.9
    assert abs(values.mean()) < 0.05
