"""Anchors and boxes of torchvision's heads, against torchvision's own."""

import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from fiber_cli.model.detector.torchvision_boxes import PyramidAnchors, from_edges, image_list, to_edges

SIZES, RATIOS = ((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5


def pyramid(height: int, width: int) -> list[torch.Tensor]:
    """Levels of a batch of two; P6 and P7 halve with rounding up."""
    sides = [(height // 8, width // 8), (height // 16, width // 16), (height // 32, width // 32)]
    for _ in range(2):
        sides.append(tuple(-(-side // 2) for side in sides[-1]))
    return [torch.zeros(2, 4, *side) for side in sides]


def test_anchors_are_not_torchvisions_where_maps_halve_evenly():
    levels = pyramid(256, 384)
    theirs = AnchorGenerator(SIZES, RATIOS)(ImageList(torch.zeros(2, 3, 256, 384), [(256, 384)] * 2), levels)
    ours = PyramidAnchors(SIZES, RATIOS)(image_list(levels), levels)
    assert len(ours) == 2
    assert torch.equal(ours[0], theirs[0])


def test_anchors_move_with_the_padding_of_a_batch():
    """torchvision divides the sizes of picture and map, which at 96 gives P6 a stride of 48."""
    small, large = pyramid(96, 96), pyramid(128, 128)
    anchors = PyramidAnchors(SIZES, RATIOS)
    alone, together = anchors(image_list(small), small)[0], anchors(image_list(large), large)[0]
    p6 = slice(3 * (144 + 36 + 9), 3 * (144 + 36 + 9 + 4))
    centres = (alone[p6, :2] + alone[p6, 2:]) / 2
    assert centres.unique().tolist() == [0, 64]
    assert set(map(tuple, alone.tolist())) <= set(map(tuple, together.tolist()))


def test_anchors_are_rounded_to_the_precision_of_the_maps():
    levels = [level.bfloat16() for level in pyramid(256, 384)]
    assert PyramidAnchors(SIZES, RATIOS)(image_list(levels), levels)[0].dtype == torch.float32


def test_edges_end_at_another_pixel():
    box = torch.tensor([[3.0, 4, 3, 9]])
    assert to_edges(box).tolist() == [[3, 4, 4, 10]]
    assert torch.equal(from_edges(to_edges(box)), box)
    assert image_list(pyramid(64, 96)).image_sizes == [(64, 96)] * 2
