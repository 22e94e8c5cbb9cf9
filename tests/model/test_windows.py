"""Windows by hand, and what is kept of them."""

import pytest
import torch

from fiber_cli.model import windows
from fiber_cli.model.swin import WindowAttention
from fiber_cli.model.windows import (
    KEPT_PLANS,
    relative_position_index,
    shift_mask,
    window_partition,
    window_plan,
    window_reverse,
)

CPU = torch.device("cpu")


def test_shift_mask_by_hand():
    """4x4 map, window 2, shift 1: the last window of each row and column joins two borders."""
    mask = shift_mask((4, 4), (2, 2), (1, 1))
    assert mask.shape == (4, 4, 4)
    assert torch.equal(mask[0], torch.zeros(4, 4))
    apart = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]) * -100.0
    assert torch.equal(mask[1], apart)
    assert torch.equal(mask[3], (1 - torch.eye(4)) * -100.0)


def test_an_axis_without_shift_is_masked_nowhere():
    assert not shift_mask((4, 6), (2, 3), (0, 0)).any()
    down_alone = shift_mask((4, 2), (2, 2), (1, 0))
    assert not down_alone[0].any()
    assert torch.equal(down_alone[1][0] == 0, torch.tensor([True, True, False, False]))


def test_relative_positions_by_hand():
    index = relative_position_index(2, 2, 2)
    assert index[0, 0] == 4
    assert index[0, 3] == 0
    assert index[3, 0] == 8
    assert index[0, 1] == 3


def test_smaller_windows_read_the_middle_of_the_table():
    """Offsets keep their row of the table: (dy, dx) = (0, 0) is its middle for every size of window."""
    whole, narrow = relative_position_index(3, 3, 3), relative_position_index(3, 1, 2)
    assert whole.unique().tolist() == list(range(25))
    assert narrow.tolist() == [[12, 11], [13, 12]]


def test_windows_are_taken_apart_and_put_together():
    x = torch.arange(2 * 4 * 6).view(2, 4, 6, 1)
    windows = window_partition(x, (2, 3))
    assert windows.shape == (2, 4, 6, 1)
    assert windows[0, 1].flatten().tolist() == [3, 4, 5, 9, 10, 11]
    assert torch.equal(window_reverse(windows, (2, 3), (4, 6)), x)


def reference_mask(size, window, shift):
    """The published form: number the regions of the whole map, cut it into windows, compare."""
    region = torch.zeros(size)
    number = 0
    for rows in (slice(0, -window[0]), slice(-window[0], -shift[0] or None), slice(-shift[0] or size[0], None)):
        for columns in (slice(0, -window[1]), slice(-window[1], -shift[1] or None), slice(-shift[1] or size[1], None)):
            region[rows, columns] = number
            number += 1
    of_windows = window_partition(region[None, :, :, None], window)[0, :, :, 0]
    return (of_windows[:, :, None] != of_windows[:, None]).float() * -100


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [((12, 8), (4, 4), (2, 2)), ((3, 3), (3, 3), (1, 1)), ((4, 6), (4, 3), (0, 1)), ((10, 5), (5, 5), (2, 0))],
)
def test_a_mask_is_not_that_of_the_published_regions(size, window, shift):
    assert torch.equal(shift_mask(size, window, shift), reference_mask(size, window, shift))


@pytest.mark.parametrize("fixed", [True, False])
def test_plans_are_made_once_a_size(fixed):
    first = window_plan(8, 8, 4, 2, CPU, fixed=fixed)
    assert window_plan(8, 8, 4, 2, CPU, fixed=fixed) is first
    assert first.padded == (8, 8)
    assert first.shift == (2, 2)
    assert torch.equal(first.mask_GNM(torch.float32)[..., :16], shift_mask((8, 8), (4, 4), (2, 2)))
    small = window_plan(3, 8, 4, 2, CPU, fixed=fixed)
    assert small.window == ((4, 4) if fixed else (3, 4))
    assert small.shift == ((2, 2) if fixed else (0, 2))
    assert window_plan(3, 3, 4, 2, CPU, fixed=False).is_shifted is False


def test_plans_of_many_sizes_fill_the_memory():
    """20,000 sizes, as an epoch of pictures has them, leave the newest plans and one table of each window."""
    windows._kept_plan.clear()
    tables = len(windows._kept_masks)
    for number in range(20_000):
        window_plan(20 + number % 200, 20 + number // 200, 12, 6, CPU, fixed=False)
    assert len(windows._kept_plan) == KEPT_PLANS
    assert len(windows._kept_masks) <= tables + 1
    plan = window_plan(200, 334, 12, 6, CPU, fixed=False)
    assert plan.kind_G.nbytes < 2**12


def test_training_after_inference_gets_a_plan_that_it_cannot_use():
    windows._kept_plan.clear()
    windows._kept_masks.clear()
    windows._kept_index.clear()
    attention = WindowAttention(8, 2, window=4, shift=2, fixed_window=False)
    x = torch.randn(1, 8, 8, 8)
    with torch.inference_mode():
        attention(x)
    attention(x).sum().backward()
    assert attention.relative_position_bias_table.grad.abs().sum() > 0
