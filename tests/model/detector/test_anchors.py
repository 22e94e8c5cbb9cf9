"""Anchors and the coding of boxes relative to them."""

import pytest
import torch

from fiber_cli.model.detector.anchors import centres_of, decode_boxes, make_anchors


def test_anchors_of_single_positions_are_the_published_ones(units):
    anchors = make_anchors([(1, 1)] * 5, torch.zeros(()))
    assert anchors.tolist() == [cell[0] for cell in units["cell_anchors"]]


def test_anchors_run_level_by_level_and_row_by_row():
    anchors = make_anchors([(2, 3), (1, 2), (1, 1), (1, 1), (1, 1)], torch.zeros((), dtype=torch.float64))
    assert anchors.shape == (11, 4)
    assert anchors.dtype == torch.float64
    centres = centres_of(anchors)
    assert centres[:6].tolist() == [[3.5 + 8 * x, 3.5 + 8 * y] for y in (0, 1) for x in (0, 1, 2)]
    assert centres[6:8].tolist() == [[7.5, 7.5], [23.5, 7.5]]
    # Square, of eight strides, the last pixel included.
    assert (anchors[:, 2:] - anchors[:, :2] + 1).tolist() == [[64, 64]] * 6 + [[128, 128]] * 2 + [
        [256, 256],
        [512, 512],
        [1024, 1024],
    ]


def test_levels_of_another_number_are_a_programming_error():
    with pytest.raises(ValueError, match="zip"):
        make_anchors([(1, 1)] * 4, torch.zeros(()))


def test_boxes_are_decoded_as_published(units):
    anchors, targets = torch.tensor(units["anchors"]), torch.tensor(units["gt"])
    torch.testing.assert_close(decode_boxes(torch.tensor(units["encode"]), anchors), targets, atol=1e-3, rtol=1e-5)
    deltas = torch.tensor([[float(v) for v in row] for row in units["decode_of"]])
    torch.testing.assert_close(decode_boxes(deltas, anchors), torch.tensor(units["decode"]), atol=1e-3, rtol=1e-5)


def test_no_shift_gives_the_anchor_and_sizes_are_bounded():
    anchor = torch.tensor([[10.0, 20, 29, 59]])
    torch.testing.assert_close(decode_boxes(torch.zeros(1, 4), anchor), anchor)
    low, high = decode_boxes(torch.tensor([[0.0, 0, 1e6, 1e6]]), anchor).split(2, -1)
    torch.testing.assert_close(high - low + 1, torch.tensor([[20.0, 40]]) * 1000 / 16)
