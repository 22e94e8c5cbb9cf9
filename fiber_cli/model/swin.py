"""Swin image encoder whose later blocks can also attend to text.

Shapes: B batch, H and W sides of the token map, C channels, G windows a map, N tokens a window, h heads, d channels a
head, T text length. Source: the published coarse and fine stages; sections "Image backbone" and "Image-side
cross-attention" of the paper's supplement as measured on the published weights.
"""

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, PatchEmbed, trunc_normal_
from timm.models.swin_transformer import PatchMerging
from torch import Tensor, nn

from fiber_cli.model.config import FiberConfig, ImageConfig
from fiber_cli.model.init import initialise


def relative_position_index(window: int, height: int, width: int) -> Tensor:
    """Row of a bias table made for `window` for every (query, key) pair of a height x width window inside it: int64
    (N, N), N = height * width."""
    y, x = torch.cartesian_prod(torch.arange(height), torch.arange(width)).unbind(1)
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


def shift_mask(size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """Additive mask that keeps rolled-in tokens apart: float (G, N, N), 0 or -100 (the published finite value).
    All sizes are (height, width); a shift of 0 leaves that axis alone."""
    # Three bands an axis: what the last window starts with, what was rolled into it, all else.
    places = (torch.arange(side) - side for side in size)
    y, x = ((place >= -w).long() + (place >= -s) for place, w, s in zip(places, window, shift))
    region = 3 * y[:, None] + x[None, :]
    region = region.view(size[0] // window[0], window[0], size[1] // window[1], window[1])
    region_GN = region.permute(0, 2, 1, 3).reshape(-1, window[0] * window[1])
    return (region_GN[:, :, None] != region_GN[:, None, :]).float() * -100.0


class WindowAttention(nn.Module):
    """Self-attention inside (shifted) windows with a learned relative position bias.

    A side of the map no longer than the window is one window of that length, unshifted, unless `fixed_window`
    (ImageConfig).
    """

    def __init__(self, dim: int, heads: int, window: int, shift: int, fixed_window: bool):
        super().__init__()
        self.heads, self.window, self.shift, self.fixed_window = heads, window, shift, fixed_window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        table = torch.empty((2 * window - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(trunc_normal_(table, std=0.02))
        self._plans: dict[tuple, tuple] = {}

    def _plan(self, height: int, width: int, device: torch.device) -> tuple:
        """What follows from the map's size: padded size, window, shift (each (height, width)), bias index, mask."""
        key = (height, width, device)
        if key not in self._plans:
            sides, w = (height, width), self.window
            window = (w, w) if self.fixed_window else (min(w, height), min(w, width))
            padded = tuple(side + -side % step for side, step in zip(sides, window))
            shift = tuple(self.shift if self.fixed_window or side > w else 0 for side in sides)
            index = relative_position_index(w, *window).to(device)
            mask = shift_mask(padded, window, shift).to(device) if any(shift) else None
            self._plans[key] = padded, window, shift, index, mask
        return self._plans[key]

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C). Maps that no whole number of windows covers are padded with zeros on the
        right and bottom; the padding is not masked, as published."""
        B, H, W, C = x_BHWC.shape
        h = self.heads
        (Hp, Wp), (wh, ww), shift, index_NN, mask_GNN = self._plan(H, W, x_BHWC.device)
        padded = (Hp, Wp) != (H, W)
        x = F.pad(x_BHWC, (0, 0, 0, Wp - W, 0, Hp - H)) if padded else x_BHWC
        if mask_GNN is not None:
            x = torch.roll(x, (-shift[0], -shift[1]), (1, 2))
        rows, cols, N = Hp // wh, Wp // ww, wh * ww
        x = x.view(B, rows, wh, cols, ww, C).permute(0, 1, 3, 2, 4, 5).reshape(B, rows * cols, N, C)
        q, k, v = self.qkv(x).view(B, rows * cols, N, 3, h, C // h).permute(3, 0, 1, 4, 2, 5).unbind(0)
        bias = F.embedding(index_NN, self.relative_position_bias_table).permute(2, 0, 1)[None]
        if mask_GNN is not None:
            # Windows differ in their mask, so they stand beside the heads and samples share one bias.
            bias = (bias + mask_GNN[:, None]).flatten(0, 1)[None]
        q, k, v = (t.reshape(-1, bias.shape[1], N, C // h) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        out = out.reshape(B, rows * cols, h, N, C // h).transpose(2, 3).reshape(B, rows * cols, N, C)
        out = self.proj(out)
        out = out.view(B, rows, cols, wh, ww, C).permute(0, 1, 3, 2, 4, 5).reshape(B, Hp, Wp, C)
        if mask_GNN is not None:
            out = torch.roll(out, shift, (1, 2))
        return out[:, :H, :W] if padded else out


class ImageCrossAttention(nn.Module):
    """Gated attention of image tokens to text tokens, on the whole map: every image token sees every text token, so
    windows would make no difference."""

    def __init__(self, dim: int, text_dim: int, heads: int, norm_query: bool):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim) if norm_query else nn.Identity()
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(text_dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, z_BHWC: Tensor, text_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        """Adds the gated term to the self-attention output `z` (after its projection, before the residual).

        `text_BTC` is the current text state, `mask_BT` bool, True for real tokens. `z` may have fewer rows (see
        `SwinBlock.forward`).
        """
        rows, (_, H, W, C), h = len(text_BTC), z_BHWC.shape, self.heads
        q = self.query(self.norm(z_BHWC)).view(-1, H * W, h, C // h).transpose(1, 2)
        k, v = self.key_value(text_BTC).view(rows, -1, 2, h, C // h).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(repeat_rows(q, rows), k, v, attn_mask=mask_BT[:, None, None, :])
        return repeat_rows(z_BHWC, rows) + self.alpha * self.proj(out.transpose(1, 2).reshape(rows, H, W, C))


def repeat_rows(x: Tensor, rows: int) -> Tensor:
    """(M, …) -> (rows, …), the copies of a row side by side; the tensor itself where M is `rows`."""
    return x if len(x) == rows else x.repeat_interleave(rows // len(x), 0)


class SwinBlock(nn.Module):
    """Window attention (with an optional gated look at the text) and MLP, pre-norm, with drop path."""

    def __init__(self, config: FiberConfig, stage: int, block: int, drop_path: float, fused: bool):
        super().__init__()
        image: ImageConfig = config.image
        dim, heads = image.dims[stage], image.heads[stage]
        shift = image.window // 2 if block % 2 else 0
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, image.window, shift, image.fixed_window)
        self.cross = ImageCrossAttention(dim, config.text.hidden, heads, config.norm_image_query) if fused else None
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * image.mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x_BHWC: Tensor, text_BTC: Tensor | None = None, mask_BT: Tensor | None = None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C); without text the block is a plain Swin block.

        The texts may be K for each map, those of one map side by side: maps (M, H, W, C) then give (M*K, H, W, C), and
        what does not depend on the text is computed once a map.
        """
        x = self._attend(x_BHWC, text_BTC, mask_BT)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def mean(self, x_BHWC: Tensor, text_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        """The mean of `forward` over the map, (B, 1, 1, C). It commutes with the MLP's second linear map, which then
        costs 1/(H*W)."""
        x = self._attend(x_BHWC, text_BTC, mask_BT)
        hidden = self.mlp.act(self.mlp.fc1(self.norm2(x))).mean((1, 2), keepdim=True)
        return x.mean((1, 2), keepdim=True) + self.drop_path(self.mlp.fc2(hidden))

    def _attend(self, x_BHWC: Tensor, text_BTC: Tensor | None, mask_BT: Tensor | None) -> Tensor:
        z = self.attn(self.norm1(x_BHWC))
        if text_BTC is not None:
            z = self.cross(z, text_BTC, mask_BT)
        return repeat_rows(x_BHWC, len(z)) + self.drop_path(z)


class SwinStage(nn.Module):
    """Blocks of one resolution; `merge` halves the map on the way to the next stage, nothing after the last."""

    def __init__(self, config: FiberConfig, stage: int, drop_path: list[float], fused_blocks: set[int]):
        super().__init__()
        dims = config.image.dims
        self.blocks = nn.ModuleList(
            SwinBlock(config, stage, block, rate, block in fused_blocks) for block, rate in enumerate(drop_path)
        )
        self.merge = PatchMerging(dims[stage], dims[stage + 1]) if stage + 1 < len(dims) else nn.Identity()


class Swin(nn.Module):
    """The image tower's parts. The encoder in `fusion.py` decides which run alone and which run fused."""

    def __init__(self, config: FiberConfig):
        super().__init__()
        image = config.image
        self.patch_embed = PatchEmbed(
            None, image.patch, 3, image.dims[0], norm_layer=nn.LayerNorm, output_fmt="NHWC", dynamic_img_pad=True
        )
        blocks = sum(image.depths)
        rates = [image.drop_path * block / max(1, blocks - 1) for block in range(blocks)]
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(image.depths):
            start = sum(image.depths[:stage])
            fused = {b for s, b, _ in config.fused_pairs if s == stage}
            self.stages.append(SwinStage(config, stage, rates[start : start + depth], fused))
        #: Applied on the way to the ITC pooler only; fused passes and captioning read the raw stream.
        self.norm = nn.LayerNorm(image.dims[-1])
        initialise(self, config.init_std)
