"""The convolution for CPUs computes what torchvision's operator and the definition do."""

import numpy as np
import pytest
import torch
from torchvision.ops import deform_conv2d

from fiber_cli.model.detector.deform_conv import deform_conv_by_rows, deform_conv_by_sampling
from fiber_cli.model.detector.dyhead import first_elements


def naive_deform_conv(x, offset, mask, weight, bias, stride):
    """Tap by tap over flat memory: offsets and masks of each sample are read as if they had the output's size."""
    B, C, H, W = x.shape
    h, w = (H - 1) // stride + 1, (W - 1) // stride + 1
    out = bias.view(1, -1, 1, 1).repeat(B, 1, h, w)

    def pixel(b, y, c):
        return x[b, :, y, c] if 0 <= y < H and 0 <= c < W else torch.zeros(C, dtype=x.dtype)

    for b in range(B):
        off, mod = offset[b].flatten(), mask[b].flatten()
        for place in range(h * w):
            for tap in range(9):
                y = stride * (place // w) - 1 + tap // 3 + float(off[2 * tap * h * w + place])
                c = stride * (place % w) - 1 + tap % 3 + float(off[(2 * tap + 1) * h * w + place])
                y0, c0 = int(np.floor(y)), int(np.floor(c))
                value = sum(
                    (1 - abs(y - yy)) * (1 - abs(c - cc)) * pixel(b, yy, cc)
                    for yy in (y0, y0 + 1)
                    for cc in (c0, c0 + 1)
                )
                out[b, :, place // w, place % w] += weight[:, :, tap // 3, tap % 3] @ (value * mod[tap * h * w + place])
    return out


@pytest.mark.parametrize("convolve", [deform_conv_by_rows, deform_conv_by_sampling, deform_conv2d])
@pytest.mark.parametrize(("level", "stride"), [((5, 6), 1), ((10, 11), 2), ((3, 3), 1)])
def test_deformable_convolution(convolve, level, stride):
    """Stride 2 reads a finer level, a smaller level than the offsets' reads their first elements."""
    torch.manual_seed(0)
    x = torch.randn(2, 4, *level, dtype=torch.float64)
    offset, mask = 2 * torch.randn(2, 18, 5, 6).double(), torch.rand(2, 9, 5, 6).double()
    weight, bias = torch.randn(3, 4, 3, 3).double(), torch.randn(3).double()
    expected = naive_deform_conv(x, offset, mask, weight, bias, stride)
    if level == (3, 3):
        offset, mask = first_elements(offset, level), first_elements(mask, level)
    torch.testing.assert_close(convolve(x, offset, weight, bias, stride, padding=1, mask=mask), expected)


def test_deformable_convolution_gradients():
    torch.manual_seed(0)
    leaves = [torch.randn(2, 4, 9, 7), torch.randn(2, 18, 5, 4), torch.randn(3, 4, 3, 3), torch.randn(3)]
    leaves = [t.double().requires_grad_() for t in (*leaves, torch.rand(2, 9, 5, 4))]
    gradients = []
    for convolve in (deform_conv_by_rows, deform_conv_by_sampling, deform_conv2d):
        out = convolve(*leaves[:4], 2, padding=1, mask=leaves[4])
        gradients.append(torch.autograd.grad(out.square().sum(), leaves))
    torch.testing.assert_close(gradients[0], gradients[2])
    torch.testing.assert_close(gradients[1], gradients[2])


def test_products_in_low_precision_round_where_to_sample():
    """Offsets far from the origin, where bfloat16 has no fractions of a position."""
    torch.manual_seed(0)
    x, offset = torch.randn(1, 8, 40, 300), 3 * torch.randn(1, 18, 40, 300)
    weight, bias, mask = torch.randn(8, 8, 3, 3) / 8, torch.randn(8), torch.rand(1, 9, 40, 300)
    exact = deform_conv_by_rows(x, offset, weight, bias, 1, padding=1, mask=mask)
    low = deform_conv_by_sampling(x, offset, weight, bias, 1, 1, mask, torch.bfloat16)
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize("gradient", [True, False])
def test_deformable_convolution_of_many_places(gradient):
    """More places than go through at once, the last of them a part of that many."""
    x, weight, bias = torch.randn(2, 4, 41, 43), torch.randn(5, 4, 3, 3), torch.randn(5)
    offset, mask = 3 * torch.randn(2, 18, 41, 43), torch.rand(2, 9, 41, 43)
    with torch.set_grad_enabled(gradient):
        ours = deform_conv_by_rows(x, offset, weight, bias, stride=1, padding=1, mask=mask)
    torch.testing.assert_close(ours, deform_conv2d(x, offset, weight, bias, 1, 1, mask=mask), atol=1e-4, rtol=1e-4)
