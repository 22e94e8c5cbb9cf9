"""Windows of a token map: how they lie, what their tokens may see, and where each pair's bias stands.

Shapes: B batch, H and W sides of the token map, C channels, G windows a map, N tokens a window. Sizes and shifts are
(height, width).
"""

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from fiber_cli.model.attention_bias import with_wide_rows
from fiber_cli.model.kept import Kept

#: How many plans are kept; of more the least recently used goes. One takes 8 bytes a window: of a picture of 800 x 1333
#: pixels 5 KiB for all stages, so that all together take 2 MiB.
KEPT_PLANS = 1024
#: How many sizes of windows have their tables kept, of 650 KiB at most for windows of 12: all together 40 MiB.
KEPT_TABLES = 64


class WindowPlan(NamedTuple):
    """What follows from a map's size alone. `bias_index_NM`: see `relative_position_index`. Of shifted windows
    `masks_KNM`: see `shift_masks`, and `kind_G`, which of them each window has; of others None. Of M columns the first
    N count, see `with_wide_rows`."""

    padded: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]
    bias_index_NM: Tensor
    masks_KNM: Tensor | None
    kind_G: Tensor | None

    @property
    def is_shifted(self) -> bool:
        return self.masks_KNM is not None

    def mask_GNM(self, dtype: torch.dtype) -> Tensor:
        """Of shifted windows what is added to the logits, see `shift_mask`."""
        assert self.masks_KNM is not None
        assert self.kind_G is not None
        return self.masks_KNM.to(dtype)[self.kind_G]


def window_plan(height: int, width: int, window: int, shift: int, device: torch.device, *, fixed: bool) -> WindowPlan:
    """Of a map of `height` by `width` tokens. A side no longer than the window is one window of that length, unshifted,
    unless `fixed` (see `ImageConfig.fixed_window`).

    A graph that is compiled makes its plan itself, from sizes that it need not know: the kept plans stand under Python
    numbers, for each of which there would be a graph.
    """
    if torch.compiler.is_compiling():
        return _make_plan(height, width, window, shift, device, fixed)
    return _kept_plan(height, width, window, shift, device, fixed)


def _make_plan(height: int, width: int, window: int, shift: int, device: torch.device, fixed: bool) -> WindowPlan:
    along_H, along_W = fixed or height > window, fixed or width > window
    windows = (window if along_H else height, window if along_W else width)
    shifts = (shift if along_H else 0, shift if along_W else 0)
    padded = (_times(height, windows[0]) * windows[0], _times(width, windows[1]) * windows[1])
    bias_index = _table(_wide_index, _kept_index, window, *windows, device)
    if shifts == (0, 0):
        return WindowPlan(padded, windows, shifts, bias_index, None, None)
    masks = _table(_wide_masks, _kept_masks, windows, shifts, device)
    return WindowPlan(padded, windows, shifts, bias_index, masks, window_kinds(padded, windows, device))


def _table(make: Callable[..., Tensor], kept: Kept[Tensor], *sizes: Hashable) -> Tensor:
    return make(*sizes) if torch.compiler.is_compiling() else kept(*sizes)


def _wide_index(window: int, height: int, width: int, device: torch.device) -> Tensor:
    return with_wide_rows(relative_position_index(window, height, width, device))


def _wide_masks(window: tuple[int, int], shift: tuple[int, int], device: torch.device) -> Tensor:
    return with_wide_rows(shift_masks(window, shift, device))


def _times(side: int, window: int) -> int:
    """How many windows cover a side."""
    return (side + window - 1) // window


def relative_position_index(window: int, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Row of a bias table made for `window` for every (query, key) pair of a height x width window inside it: int64
    (N, N), N = height * width."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    y, x = rows.repeat_interleave(width), columns.repeat(height)
    dy, dx = y[:, None] - y, x[:, None] - x
    largest = window - 1
    return (dy + largest) * (2 * window - 1) + dx + largest


def shift_mask(
    size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], device: torch.device | None = None
) -> Tensor:
    """Additive mask that keeps rolled-in tokens apart: float (G, N, N), 0 or -100 (the published finite value).
    A shift of 0 leaves that axis alone."""
    return shift_masks(window, shift, device)[window_kinds(size, window, device)]


def shift_masks(window: tuple[int, int], shift: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """The masks that there are, float (4, N, N): of windows that end neither a column of windows nor a row of them,
    that end a row, a column, both."""
    band_H = _rolled_in(window[0], shift[0], device)
    band_W = _rolled_in(window[1], shift[1], device)
    nowhere_H, nowhere_W = torch.zeros_like(band_H), torch.zeros_like(band_W)
    masks = []
    for down in (nowhere_H, band_H):
        for across in (nowhere_W, band_W):
            region_N = (2 * down[:, None] + across).flatten()
            masks.append(region_N[:, None] != region_N)
    return torch.stack(masks).float() * -100.0


def _rolled_in(side: int, shift: int, device: torch.device | None) -> Tensor:
    """Which rows or columns of the last window were rolled into it, int64 (side,)."""
    return (torch.arange(side, device=device) >= side - shift).long()


def window_kinds(size: tuple[int, int], window: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Which of `shift_masks` each window of a map has, int64 (G,)."""
    down, across = size[0] // window[0], size[1] // window[1]
    ends_column = torch.arange(down, device=device) == down - 1
    ends_row = torch.arange(across, device=device) == across - 1
    return (2 * ends_column.long()[:, None] + ends_row.long()).flatten()


_kept_plan = Kept(_make_plan, KEPT_PLANS)
_kept_index = Kept(_wide_index, KEPT_TABLES)
_kept_masks = Kept(_wide_masks, KEPT_TABLES)


def window_partition(x_BHWC: Tensor, window: tuple[int, int]) -> Tensor:
    """(B, H, W, C) -> (B, G, N, C); the sides must be multiples of the window's (height, width)."""
    B, H, W, C = x_BHWC.shape
    height, width = window
    down, across = H // height, W // width
    grid = x_BHWC.view(B, down, height, across, width, C)
    return grid.transpose(2, 3).reshape(B, down * across, height * width, C)


def window_reverse(x_BGNC: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Inverse of `window_partition`: (B, G, N, C) -> (B, H, W, C) for `size` (H, W)."""
    B, _, _, C = x_BGNC.shape
    height, width = window
    down, across = size[0] // height, size[1] // width
    grid = x_BGNC.view(B, down, across, height, width, C)
    return grid.transpose(2, 3).reshape(B, *size, C)
