"""The blocks of the head."""

import json

import pytest
import torch
from torchvision.ops import deform_conv2d

from fiber_cli.model.detector.deform_conv import deform_conv_by_rows
from fiber_cli.model.detector.dyhead import DeformConv, DyBlock, DyRelu, first_elements


def test_block_has_the_published_rereading(shared):
    """The published operator's stored output where offsets belong to a finer level."""
    case = json.loads((shared / "golden" / "fine_data_cases.json").read_text())["units"]
    case = {k: torch.tensor(v) for k, v in case["deform_conv_mismatched_upsample_case"].items()}
    x, raw, expected = case["input_1x2x3x4"], case["offset_mask_raw_1x27x6x8"], case["output_1x2x3x4"]
    size = expected.shape[-2:]
    offset, mask = first_elements(raw[:, :18], size), first_elements(raw[:, 18:].sigmoid(), size)
    for convolve in (deform_conv_by_rows, deform_conv2d):
        out = convolve(
            x, offset, case["weight"], case["bias"], int(case["stride"]), padding=int(case["pad"]), mask=mask
        )
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("in_low_precision", [False, True])
def test_block_under_autocast(in_low_precision):
    block = DyBlock(16)
    levels = [torch.randn(1, 16, side, side) for side in (8, 4, 2)]
    whole = block(levels)
    for convolution in (block.coarser, block.same, block.finer):
        convolution.in_low_precision = in_low_precision
    # Outside of autocast the setting has no effect.
    torch.testing.assert_close(block(levels), whole, atol=0, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = block([x.bfloat16() for x in levels])
        assert (half[0].dtype == torch.bfloat16) == in_low_precision
    for a, b in zip(half, whole, strict=True):
        assert (a.float() - b).abs().max() < 0.1 * b.abs().max()
    half[0].float().sum().backward()
    assert block.same.weight.grad.isfinite().all()


def test_order_of_memory_changes_a_number():
    torch.manual_seed(0)
    block = DyBlock(16)
    levels = [torch.randn(2, 16, side, side + 1, requires_grad=True) for side in (8, 4, 2)]
    outcomes = []
    for block.channels_last in (False, True):
        fused = block(levels)
        loss = torch.stack([level.square().mean() for level in fused]).sum()
        outcomes.append((fused, torch.autograd.grad(loss, [*levels, *block.parameters()])))
    torch.testing.assert_close(outcomes[1], outcomes[0])


@torch.no_grad()
def test_fresh_activations_are_half_open():
    """With coefficients at 0 the two lines are x and 0: a ReLU."""
    torch.manual_seed(0)
    relu = DyRelu(16)
    relu.fc2.weight.zero_()
    relu.fc2.bias.zero_()
    x = torch.randn(2, 16, 3, 4)
    (out,) = relu([x])
    torch.testing.assert_close(out, x.relu())


@torch.no_grad()
def test_offsets_of_whole_positions_shift_the_input():
    """A stride of 1, offsets (0, 1) and masks of 1 make a plain convolution of the map moved by a column."""
    torch.manual_seed(0)
    conv = DeformConv(16, 1)
    x = torch.randn(1, 16, 6, 7)
    offset = torch.tensor([0.0, 1]).repeat(9).view(1, 18, 1, 1).expand(1, 18, 6, 7)
    moved = torch.nn.functional.pad(x, (1, 2, 1, 1))[..., 1:]
    plain = torch.nn.functional.conv2d(moved, conv.weight, conv.bias)
    # The column that left the map on the left is still read by the first taps.
    out = conv(x, offset.contiguous(), torch.ones(1, 9, 6, 7))
    torch.testing.assert_close(out, conv.norm(plain), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("levels", [1, 2, 5])
def test_levels_keep_their_shapes(levels):
    block = DyBlock(16)
    maps = [torch.randn(2, 16, 16 >> level, 24 >> level) for level in range(levels)]
    assert [out.shape for out in block(maps)] == [x.shape for x in maps]
