"""Swin's tables of positions at another size: the relative bias of windows and the embedding of the map."""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.checkpoints.weights import named_weights
from fiber_cli.model.position_embedding import resize_position_embedding

POSITION_BIAS = "relative_position_bias_table"
#: Of an encoder.
POSITION_EMBEDDING = "image.position.table"


def window_of(table: Tensor) -> int:
    """Tokens along a side of the windows that a table ((2a-1)², heads) is for: a."""
    offsets = math.isqrt(len(table))
    return (offsets + 1) // 2


def resize_position_bias(table: Tensor, window: int) -> Tensor:
    """A Swin relative-position-bias table ((2a-1)², heads) for windows of `window` by `window` tokens.

    Bicubic over the (2a-1) by (2a-1) offsets, as the published code does when the image size changes.
    """
    before = math.isqrt(len(table))
    assert before * before == len(table), table.shape
    after = 2 * window - 1
    grid = table.T.reshape(1, -1, before, before).float()
    resized = F.interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
    rows = resized.reshape(-1, after * after).T
    return rows.to(table.dtype).contiguous()


def fit_positions(weights: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """`weights` with the position-bias tables resized to the module's windows, and the position embedding to its map;
    the rest as it is."""
    ours = named_weights(module)
    fitted = dict(weights)
    for name, table in weights.items():
        if name.endswith(POSITION_BIAS) and name in ours and len(ours[name]) != len(table):
            fitted[name] = resize_position_bias(table, window_of(ours[name]))
        if name.endswith(POSITION_EMBEDDING) and name in ours and ours[name].shape != table.shape:
            height, width, _ = ours[name].shape
            fitted[name] = resize_position_embedding(table, (height, width))
    return fitted
