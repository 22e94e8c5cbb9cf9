"""Where in the image a token lies, as a learned vector (Swin's option `ape`: "Swin Transformer", ICCV 2021, Table 4).

Shapes: B batch, C channels, H and W sides of the token map.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Of the waves that a table starts as. Tokens come out of a norm, so that their channels are about 1: of waves as large
#: as half of that, corners are told apart after some hundred steps; of noise of 0.02, Swin's start, they are not.
AMPLITUDE = 0.5
#: Half waves across the map: of the first wave, and how many more of each one after it.
FIRST_HALF_WAVES, MORE_HALF_WAVES = 0.5, 0.25


def waves(height: int, width: int, channels: int, device: torch.device | None = None) -> Tensor:
    """A table (H, W, C): sines and cosines of the row and of the column, of rising frequencies."""
    rows = (torch.arange(height, device=device) + 0.5) / height - 0.5
    columns = (torch.arange(width, device=device) + 0.5) / width - 0.5
    row_HW, column_HW = torch.meshgrid(rows, columns, indexing="ij")
    values = []
    for number in range(math.ceil(channels / 4)):
        frequency = math.pi * (FIRST_HALF_WAVES + MORE_HALF_WAVES * number)
        for offset_HW in (row_HW, column_HW):
            angle = frequency * offset_HW
            values += [torch.sin(angle), torch.cos(angle)]
    return AMPLITUDE * torch.stack(values[:channels], dim=2)


def resize_position_embedding(table_HWC: Tensor, size: tuple[int, int]) -> Tensor:
    """A table (H, W, C) for maps of another size (height, width), bicubic, as detectors on Swin do."""
    grid_1CHW = table_HWC.permute(2, 0, 1)[None].float()
    resized_1CHW = F.interpolate(grid_1CHW, size=size, mode="bicubic", align_corners=False)
    return resized_1CHW[0].permute(1, 2, 0).to(table_HWC.dtype).contiguous()


class PositionEmbedding(nn.Module):
    """A table of vectors for maps of `height` by `width` tokens; on maps of other sizes it is resized."""

    def __init__(self, height: int, width: int, channels: int):
        super().__init__()
        table_HWC = torch.empty(height, width, channels)
        # Also where the sizes are too large for any memory, and the table is on "meta".
        self.table = nn.Parameter(waves(height, width, channels, table_HWC.device))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> the same, every token with its position's vector added."""
        size = (x_BHWC.shape[1], x_BHWC.shape[2])
        table_HWC: Tensor = self.table
        if size != table_HWC.shape[:2]:
            table_HWC = resize_position_embedding(table_HWC, size)
        return x_BHWC + table_HWC.to(x_BHWC.dtype)
