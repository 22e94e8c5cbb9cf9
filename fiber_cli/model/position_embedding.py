"""Where in the image a token lies, as a learned vector (Swin's option `ape`: "Swin Transformer", ICCV 2021, Table 4).

Shapes: B batch, C channels, H and W sides of the token map.
"""

import torch
import torch.nn.functional as F
from timm.layers.weight_init import trunc_normal_
from torch import Tensor, nn


def resize_position_embedding(table_HWC: Tensor, size: tuple[int, int]) -> Tensor:
    """A table (H, W, C) for maps of another size (height, width), bicubic, as detectors on Swin do."""
    grid_1CHW = table_HWC.permute(2, 0, 1)[None].float()
    resized_1CHW = F.interpolate(grid_1CHW, size=size, mode="bicubic", align_corners=False)
    return resized_1CHW[0].permute(1, 2, 0).to(table_HWC.dtype).contiguous()


class PositionEmbedding(nn.Module):
    """A table of vectors for maps of `height` by `width` tokens; on maps of other sizes it is resized."""

    def __init__(self, height: int, width: int, channels: int):
        super().__init__()
        self.table = nn.Parameter(trunc_normal_(torch.empty(height, width, channels), std=0.02))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> the same, every token with its position's vector added."""
        size = (x_BHWC.shape[1], x_BHWC.shape[2])
        table_HWC: Tensor = self.table
        if size != table_HWC.shape[:2]:
            table_HWC = resize_position_embedding(table_HWC, size)
        return x_BHWC + table_HWC.to(x_BHWC.dtype)
