"""The feature pyramid and its DropBlock."""

import pytest
import torch
import torch.nn.functional as F

from fiber_cli.model.detector.fpn import Fpn, drop_block

DIMS = (16, 32, 64)


def test_drop_block():
    torch.manual_seed(0)
    x = torch.rand(8, 5, 60, 70) + 1
    out = drop_block(x, 0.3)
    gone = out == 0
    assert torch.equal(gone.any(1), gone.all(1)), "channels share the squares"
    kept = ~gone[:, 0]
    ratio = (out / x)[:, 0][kept]
    torch.testing.assert_close(ratio, torch.full_like(ratio, kept.numel() / int(kept.sum())))
    # A place survives if none of the nine squares around it starts.
    assert kept.float().mean().item() == pytest.approx((1 - 0.3 / 9) ** 9, abs=0.02)
    # Every hole is a union of 3x3 squares: eroding and dilating again leaves it as it is.
    inner = gone[:, :1, 1:-1, 1:-1].float()
    opened = F.max_pool2d(-F.max_pool2d(-gone[:, :1].float(), 3, 1, 1), 3, 1, 1)[:, :, 1:-1, 1:-1]
    assert torch.equal(opened, inner)


def test_drop_block_is_for_training_only():
    fpn = Fpn(DIMS, 32, 0.9)
    maps = [torch.randn(1, dim, side, side) for dim, side in zip(DIMS, (16, 8, 4), strict=True)]
    first, again = fpn.eval()(maps), fpn(maps)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    trained = fpn.train()(maps)
    different = [not torch.allclose(a, b) for a, b in zip(first, trained, strict=True)]
    assert different == [True, True, False, False, False], "the coarsest path keeps everything"


@torch.no_grad()
def test_five_levels_halve_and_the_finer_see_the_coarser():
    torch.manual_seed(0)
    fpn = Fpn(DIMS, 32, 0.0)
    maps = [torch.randn(1, dim, side, side + 2) for dim, side in zip(DIMS, (24, 12, 6), strict=True)]
    levels = fpn(maps)
    assert [tuple(x.shape[2:]) for x in levels] == [(24, 26), (12, 14), (6, 8), (3, 4), (2, 2)]
    of_the_finest = [maps[0] + 1, *maps[1:]]
    changed = [not torch.equal(a, b) for a, b in zip(levels, fpn(of_the_finest), strict=True)]
    assert changed == [True, False, False, False, False]
    of_the_coarsest = [*maps[:2], maps[2] + 1]
    assert not any(torch.equal(a, b) for a, b in zip(levels, fpn(of_the_coarsest), strict=True))


def gradients(fpn, maps, *, low):
    fpn.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        levels = fpn(maps)
    sum(level.float().square().sum() for level in levels).backward()
    return {name: parameter.grad.clone() for name, parameter in fpn.named_parameters()}


@pytest.mark.parametrize("finest", [(4, 4), (8, 4), (20, 4), (4, 20), (12, 8), (16, 16)])
def test_gradients_of_narrow_pictures_are_what_the_memory_held(finest):
    """In bfloat16 as in float32, for pictures of 32 pixels and more a side; many times, as chance decides."""
    height, width = finest
    for seed in range(12):
        torch.manual_seed(seed)
        fpn = Fpn(DIMS, 32, 0)
        maps = [torch.randn(2, channels, height >> i, width >> i) for i, channels in enumerate(DIMS)]
        expected = gradients(fpn, maps, low=False)
        for name, gradient in gradients(fpn, maps, low=True).items():
            largest = expected[name].abs().max()
            torch.testing.assert_close(gradient, expected[name], atol=float(0.05 * largest), rtol=0.1)
