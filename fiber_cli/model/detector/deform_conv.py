"""Deformable 3x3 convolution: torchvision's operator, and in plain PyTorch for CPUs and for products in low precision.

Shapes: B batch, C channels, H and W sides of the input, h and w sides of the output, 3 x 3 taps of the kernel, R rows
of the input written as a table, one a position.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fiber_cli.model.kept import Kept
from fiber_cli.model.linear import linear

TAPS = 9
#: How many sizes of maps have the places of their taps kept, each of 1.2 MiB at most for pictures of 800 x 1333 pixels:
#: all together less than 73 MiB.
KEPT_TAPS = 64
#: Positions of the output whose taps go through a CPU's cache together.
CHUNK = 1024


def deform_conv(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, mask: Tensor
) -> Tensor:
    """What torchvision's `deform_conv2d` computes: (B, C, H, W) -> (B, out, h, w). offset: (B, 18, h, w), (dy, dx) of
    each tap in row-major order; mask: (B, 9, h, w), its share; weight: (out, C, 3, 3), bias: (out,)."""
    if x.device.type == "cpu":
        return deform_conv_by_rows(x, offset, weight, bias, stride, padding, mask)
    # Late, as no CPU needs it: torchvision takes longer to import than a small detector to answer.
    from torchvision.ops import deform_conv2d

    out: Tensor = deform_conv2d(x, offset, weight, bias, stride, padding, mask=mask)
    return out


def deform_conv_by_rows(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, mask: Tensor
) -> Tensor:
    """torchvision's `deform_conv2d` for 3x3 kernels, in plain PyTorch: every tap is a weighted sum of four rows of
    channels, which is what `embedding_bag` adds up on all cores. Three times as fast on a CPU as the operator."""
    B, C, H, W = x.shape
    h, w = offset.shape[-2:]
    points = _sampling_points(offset, stride, padding)
    corners, weights = _bilinear_corners(points, H, W)
    mask_Bhw331 = mask.permute(0, 2, 3, 1).view(B, h, w, 3, 3, 1)
    weights = weights * mask_Bhw331

    table_RC = x.permute(0, 2, 3, 1).reshape(-1, C)
    kernel = weight.permute(0, 2, 3, 1).flatten(1)
    # With a gradient all positions go together: each chunk's gradient would be as large as the table.
    positions = B * h * w if torch.is_grad_enabled() else CHUNK
    corner_chunks = corners.view(-1, 4).split(TAPS * positions)
    weight_chunks = weights.view(-1, 4).split(TAPS * positions)
    outputs = []
    for corner_chunk, weight_chunk in zip(corner_chunks, weight_chunks, strict=True):
        taps = F.embedding_bag(corner_chunk, table_RC, mode="sum", per_sample_weights=weight_chunk)
        inputs = taps.view(-1, TAPS * C)
        outputs.append(linear(inputs, kernel, bias))
    out_BhwC = torch.cat(outputs).view(B, h, w, -1)
    return out_BhwC.permute(0, 3, 1, 2)


def deform_conv_by_sampling(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: int,
    padding: int,
    mask: Tensor,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The same by `grid_sample` and one matrix product, whose factors have the type `dtype` and whose sums are float32
    inside; None: that of x. Points are computed in the type of x and `offset`: bfloat16 would round them by whole
    positions."""
    B, C, H, W = x.shape
    h, w = offset.shape[-2:]
    dtype = x.dtype if dtype is None else dtype
    across_9P, down_9P = _unmoved_taps((h, w), (H, W), stride, padding, offset)
    moved_B92P = offset.reshape(B, TAPS, 2, h * w)
    across_B9P = torch.add(across_9P, moved_B92P[:, :, 1], alpha=2 / W)
    down_B9P = torch.add(down_9P, moved_B92P[:, :, 0], alpha=2 / H)
    grid_B9P2 = torch.stack([across_B9P, down_B9P], -1)
    sampled_BC9P = F.grid_sample(x, grid_B9P2, mode="bilinear", padding_mode="zeros", align_corners=False)
    taps_BC9P = (sampled_BC9P * mask.view(B, 1, TAPS, h * w)).to(dtype)
    kernel = weight.flatten(1).to(dtype)
    out_BOP = kernel @ taps_BC9P.view(B, C * TAPS, h * w)
    out_BOP = out_BOP + bias.to(dtype)[:, None]
    return out_BOP.view(B, -1, h, w)


def _unmoved_taps(
    size: tuple[int, int], of_input: tuple[int, int], stride: int, padding: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the taps of outputs of `size` (height, width) read without offsets: across and down, (9, P) each, -1 and 1
    being the outer edges of the input. Not to be changed: they are kept."""
    if torch.compiler.is_compiling():
        return _make_unmoved_taps(size, of_input, stride, padding, like.dtype, like.device)
    return _kept_taps(size, of_input, stride, padding, like.dtype, like.device)


def _make_unmoved_taps(
    size: tuple[int, int],
    of_input: tuple[int, int],
    stride: int,
    padding: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    nowhere = torch.zeros(1, 2 * TAPS, *size, dtype=dtype, device=device)
    points_hw92 = _sampling_points(nowhere, stride, padding)[0].flatten(2, 3)
    points_9P2 = points_hw92.permute(2, 0, 1, 3).flatten(1, 2)
    y, x = points_9P2.unbind(-1)
    return (2 * x + 1) / of_input[1] - 1, (2 * y + 1) / of_input[0] - 1


_kept_taps = Kept(_make_unmoved_taps, KEPT_TAPS)


def _sampling_points(offset: Tensor, stride: int, padding: int) -> Tensor:
    """Where each tap of each output position reads the input: (y, x), (B, h, w, 3, 3, 2)."""
    B, _, h, w = offset.shape
    row = torch.arange(h, device=offset.device, dtype=offset.dtype)
    column = torch.arange(w, device=offset.device, dtype=offset.dtype)
    tap = torch.arange(3, device=offset.device, dtype=offset.dtype)
    first_y, first_x = stride * row - padding, stride * column - padding
    y = first_y[:, None, None, None] + tap[:, None]
    x = first_x[:, None, None] + tap
    grid = torch.stack(torch.broadcast_tensors(y, x), -1)
    offset_Bhw332 = offset.permute(0, 2, 3, 1).view(B, h, w, 3, 3, 2)
    return grid + offset_Bhw332


def _bilinear_corners(points: Tensor, H: int, W: int) -> tuple[Tensor, Tensor]:
    """The four positions around each point (B, ..., 2), as rows of the table, int64 (B, ..., 4), and their weights,
    which are 0 outside of the map."""
    low = points.detach().floor()
    fraction = points - low
    shares = torch.stack([1 - fraction, fraction])
    corners = torch.stack([low, low + 1]).long()
    sides = torch.tensor([H, W], device=points.device)
    shares = shares * ((corners >= 0) & (corners < sides))
    corners = torch.minimum(corners.clamp(min=0), sides - 1)

    image = torch.arange(len(points), device=points.device)
    first_line = H * image.view(-1, 1, 1, 1, 1)
    rows, weights = [], []
    for y_corner, y_share in zip(corners[..., 0], shares[..., 0], strict=True):
        for x_corner, x_share in zip(corners[..., 1], shares[..., 1], strict=True):
            rows.append((first_line + y_corner) * W + x_corner)
            weights.append(y_share * x_share)
    return torch.stack(rows, -1), torch.stack(weights, -1)
