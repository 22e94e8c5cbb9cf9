"""From the tokens of a map that no whole number of windows covers to those of its windows, and back, in one copy each.

What the map lacks is padding, all of which is one and the same token: it stands once behind the map's own.
Shapes: B batch, H and W sides of the token map, T = H * W its tokens, P >= T tokens of all windows, C channels. Sizes
and shifts are (height, width).
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fiber_cli.model.kept import Kept

#: How many orders are kept; of more the least recently used goes. One takes 16 bytes a token, of the first stage of a
#: picture of 800 x 1333 pixels 1 MiB, so that all together take 67 MiB.
KEPT_ORDERS = 64

Sides = tuple[int, int]


class WindowOrder(NamedTuple):
    """`token_P`: which of the map's tokens, row by row, each place in the windows has, T for padding; `place_T1`: the
    place of every token, and any for the padding. Both int64."""

    token_P: Tensor
    place_T1: Tensor

    def to_windows(self, x_BT1C: Tensor) -> Tensor:
        """The map's tokens and, as the last one, padding (B, T + 1, C) -> the windows' tokens (B, P, C)."""
        windows: Tensor = _ToWindows.apply(x_BT1C, *self)
        return windows

    def from_windows(self, x_BPC: Tensor) -> Tensor:
        """The windows' tokens (B, P, C) -> the map's (B, T, C)."""
        tokens: Tensor = _FromWindows.apply(x_BPC, *self)
        return tokens

    def all_to_windows(self, x_BTC: Tensor) -> Tensor:
        """`to_windows` of a map without padding: (B, T, C) -> (B, T, C)."""
        windows: Tensor = _Permuted.apply(x_BTC, self.token_P, self.place_T1[:-1])
        return windows

    def all_from_windows(self, x_BTC: Tensor) -> Tensor:
        """Inverse of `all_to_windows`."""
        tokens: Tensor = _Permuted.apply(x_BTC, self.place_T1[:-1], self.token_P)
        return tokens


class _ToWindows(torch.autograd.Function):
    """index_select, whose own gradient adds up the padding's in an order that differs from run to run on GPUs."""

    @staticmethod
    def forward(ctx: Any, x_BT1C: Tensor, token_P: Tensor, place_T1: Tensor) -> Tensor:
        ctx.save_for_backward(token_P, place_T1)
        return x_BT1C.index_select(1, token_P)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient_BPC,) = gradients
        token_P, place_T1 = ctx.saved_tensors
        padding = place_T1.shape[0] - 1
        of_tokens_BT1C = gradient_BPC.index_select(1, place_T1)
        is_padding_P = (token_P == padding).to(gradient_BPC.dtype)
        of_tokens_BT1C[:, -1] = is_padding_P @ gradient_BPC
        return of_tokens_BT1C, None, None


class _FromWindows(torch.autograd.Function):
    """index_select, whose gradient is one too."""

    @staticmethod
    def forward(ctx: Any, x_BPC: Tensor, token_P: Tensor, place_T1: Tensor) -> Tensor:
        ctx.save_for_backward(token_P)
        return x_BPC.index_select(1, place_T1[:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient_BTC,) = gradients
        (token_P,) = ctx.saved_tensors
        with_padding_BT1C = F.pad(gradient_BTC, (0, 0, 0, 1))
        return with_padding_BT1C.index_select(1, token_P), None, None


class _Permuted(torch.autograd.Function):
    """index_select by a permutation, whose gradient is that by its inverse."""

    @staticmethod
    def forward(ctx: Any, x_BTC: Tensor, order_T: Tensor, inverse_T: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_T)
        return x_BTC.index_select(1, order_T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient_BTC,) = gradients
        (inverse_T,) = ctx.saved_tensors
        return gradient_BTC.index_select(1, inverse_T), None, None


def window_order(size: Sides, padded: Sides, window: Sides, shift: Sides, device: torch.device) -> WindowOrder:
    """Of a map of `size` that is padded on the right and at the bottom, rolled up and to the left by `shift`, and cut
    into windows. A graph that is compiled makes its order itself, see `window_plan`."""
    if torch.compiler.is_compiling():
        return _make_order(size, padded, window, shift, device)
    return _kept_order(size, padded, window, shift, device)


def _make_order(size: Sides, padded: Sides, window: Sides, shift: Sides, device: torch.device) -> WindowOrder:
    (H, W), (height, width) = size, window
    down, across = padded[0] // height, padded[1] // width
    y = (torch.arange(padded[0], device=device) + shift[0]) % padded[0]
    x = (torch.arange(padded[1], device=device) + shift[1]) % padded[1]
    is_token = (y < H)[:, None] & (x < W)
    token = torch.where(is_token, y[:, None] * W + x, H * W)
    token_P = token.view(down, height, across, width).transpose(1, 2).flatten()

    row = (torch.arange(H, device=device) - shift[0]) % padded[0]
    column = (torch.arange(W, device=device) - shift[1]) % padded[1]
    window_number = (row // height)[:, None] * across + column // width
    within = (row % height)[:, None] * width + column % width
    place_T = (window_number * (height * width) + within).flatten()
    return WindowOrder(token_P, F.pad(place_T, (0, 1)))


_kept_order = Kept(_make_order, KEPT_ORDERS)
