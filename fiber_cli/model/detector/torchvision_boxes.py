"""What torchvision's heads have in common here: their anchors on this pyramid, and their boxes.

torchvision's boxes are edges, x2 = x1 + width; those of the rest of the program name their first and last pixel.
Shapes: N anchors of all levels (finest first, row-major, all of one position together).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from fiber_cli.model.detector.anchors import STRIDES
from fiber_cli.model.kept import constant


class PyramidAnchors(AnchorGenerator):
    """torchvision's anchors, float32, at the pyramid's own strides, which torchvision takes from the sizes of picture
    and map: levels that do not halve evenly would have others for each size of the batch."""

    def forward(self, images: ImageList, levels: Sequence[Tensor]) -> list[Tensor]:
        """Edges (N, 4) for each image; of `images` only their number counts. levels: (B, C, H_l, W_l) each."""
        dtype = torch.promote_types(levels[0].dtype, torch.float32)
        self.set_cell_anchors(dtype, levels[0].device)
        sides = [level.shape[-2:] for level in levels]
        of_levels = self.grid_anchors(sides, [[stride, stride] for stride in STRIDES])
        return [torch.cat(of_levels)] * len(images.image_sizes)


def image_list(levels: Sequence[Tensor]) -> ImageList:
    """What torchvision's modules want to know of the pictures of a pyramid: that they are as large as the batch, whose
    padding belongs to them. There are no pixels in it."""
    count = len(levels[0])
    height, width = levels[0].shape[-2:]
    size = (height * STRIDES[0], width * STRIDES[0])
    return ImageList(levels[0], [size] * count)


def to_edges(boxes: Tensor) -> Tensor:
    """(..., 4) boxes of first and last pixels as edges."""
    return boxes + constant((0, 0, 1, 1), boxes.dtype, boxes.device)


def from_edges(edges: Tensor) -> Tensor:
    """Inverse of `to_edges`."""
    return edges - constant((0, 0, 1, 1), edges.dtype, edges.device)
