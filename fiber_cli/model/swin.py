"""Swin image encoder whose later blocks can also attend to text.

Shapes: B batch, H and W sides of the token map, C channels, G windows a map, N tokens a window, h heads, d channels a
head, T text length. Source: the published coarse and fine stages; sections "Image backbone" and "Image-side
cross-attention" of the paper's supplement as measured on the published weights.
"""

from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.attention_bias import narrowed
from fiber_cli.model.config import FiberConfig, ImageConfig
from fiber_cli.model.convolutional_stem import ConvolutionalStem
from fiber_cli.model.decoder_cache import KeyValues
from fiber_cli.model.drop_path import DropPath
from fiber_cli.model.init import initialise
from fiber_cli.model.linear import Linear
from fiber_cli.model.merged_attention import gate, merged_attention
from fiber_cli.model.module_sequence import ModuleSequence
from fiber_cli.model.norm import LayerNorm
from fiber_cli.model.position_embedding import PositionEmbedding
from fiber_cli.model.swin_layers import Mlp, PatchEmbed, PatchMerging, truncated_normal
from fiber_cli.model.window_order import window_order
from fiber_cli.model.windows import WindowPlan, window_partition, window_plan, window_reverse


class WindowAttention(nn.Module):
    """Self-attention inside (shifted) windows with a learned relative position bias.

    A side of the map no longer than the window is one window of that length, unshifted, unless `fixed_window`
    (ImageConfig).
    """

    def __init__(self, dim: int, heads: int, window: int, shift: int, fixed_window: bool):
        super().__init__()
        self.heads, self.window, self.shift, self.fixed_window = heads, window, shift, fixed_window
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        table = truncated_normal((2 * window - 1) ** 2, heads, std=0.02)
        self.relative_position_bias_table = nn.Parameter(table)

    def forward(self, x_BHWC: Tensor, text: "MergedText | None" = None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C). Maps that no whole number of windows covers are padded with zeros on the
        right and bottom; the padding is not masked, as published. `text`: what every token sees beside its window, of
        one text for each map."""
        H, W = x_BHWC.shape[1:3]
        plan = window_plan(H, W, self.window, self.shift, x_BHWC.device, fixed=self.fixed_window)
        # Before it is copied, as it is half as much then.
        x = narrowed(x_BHWC)
        # A compiled graph pads by what may be nothing, so that one serves all sizes.
        if torch.compiler.is_compiling() or plan.padded != (H, W):
            return self._within_padded(x, plan, text)
        if plan.is_shifted:
            return self._within_shifted(x, plan, text)
        x_BGNC = window_partition(x, plan.window)
        out_BGNC = self.proj(self._attend(self.qkv(x_BGNC), plan, text))
        return window_reverse(out_BGNC, plan.window, plan.padded)

    def _within_shifted(self, x_BHWC: Tensor, plan: WindowPlan, text: "MergedText | None") -> Tensor:
        """`forward` of a map that shifted windows cover: in place of rolling it and cutting it up, one copy."""
        H, W = x_BHWC.shape[1:3]
        order = window_order((H, W), plan.padded, plan.window, plan.shift, x_BHWC.device)
        x_BPC = order.all_to_windows(x_BHWC.flatten(1, 2))
        N = plan.window[0] * plan.window[1]
        out_BGNC = self._attend(self.qkv(x_BPC.unflatten(1, (-1, N))), plan, text)
        out_BTC = order.all_from_windows(out_BGNC.flatten(1, 2))
        out_BHWC: Tensor = self.proj(out_BTC).unflatten(1, (H, W))
        return out_BHWC

    def _within_padded(self, x_BHWC: Tensor, plan: WindowPlan, text: "MergedText | None") -> Tensor:
        """`forward` of a map that is padded. The two products are those of the map's own tokens and of one token of
        padding, as all others are the same."""
        H, W = x_BHWC.shape[1:3]
        order = window_order((H, W), plan.padded, plan.window, plan.shift, x_BHWC.device)
        with_padding_BT1C = F.pad(x_BHWC.flatten(1, 2), (0, 0, 0, 1))
        qkv_BPc = order.to_windows(self.qkv(with_padding_BT1C))
        N = plan.window[0] * plan.window[1]
        out_BGNC = self._attend(qkv_BPc.unflatten(1, (-1, N)), plan, text)
        out_BTC = order.from_windows(out_BGNC.flatten(1, 2))
        out_BHWC: Tensor = self.proj(out_BTC).unflatten(1, (H, W))
        return out_BHWC

    def _attend(self, qkv_BGNc: Tensor, plan: WindowPlan, text: "MergedText | None") -> Tensor:
        """Queries, keys and values side by side (B, G, N, 3 * C) -> (B, G, N, C)."""
        B, G, N = qkv_BGNc.shape[:3]
        h = self.heads
        qkv_BGN3hd = qkv_BGNc.unflatten(3, (3, h, -1))
        qkv_3BGhNd = qkv_BGN3hd.permute(3, 0, 1, 4, 2, 5)
        bias = self._bias(plan, B, qkv_BGNc.dtype)
        q, k, v = qkv_3BGhNd.reshape(3, -1, bias.shape[1], N, qkv_3BGhNd.shape[-1]).unbind(0)
        if text is None:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        else:
            of_windows = text.for_windows(G, heads=bias.shape[1])
            out = merged_attention(q, KeyValues(k, v), bias, of_windows.key_values, of_windows.mask, text.alpha)
        out_BGNhd = out.reshape(B, G, h, N, -1).transpose(2, 3)
        return out_BGNhd.reshape(B, G, N, -1)

    def _bias(self, plan: WindowPlan, maps: int, dtype: torch.dtype) -> Tensor:
        """What is added to the attention's logits: (1, h, N, N) for all windows. Where windows differ in their mask,
        (1, G*h, N, N), so that they stand beside the heads and samples share one bias; of one map (G, h, N, N). Rows
        lie apart as in the plan."""
        bias_NMh = F.embedding(plan.bias_index_NM, self.relative_position_bias_table)
        # Transposed and cast once, not for every window again.
        bias_hNM = bias_NMh.permute(2, 0, 1).to(dtype, memory_format=torch.contiguous_format)
        bias_1hNM = bias_hNM.contiguous()[None]
        N = bias_1hNM.shape[2]
        if not plan.is_shifted:
            return bias_1hNM[..., :N]
        bias_GhNM = bias_1hNM + plan.mask_GNM(dtype)[:, None]
        bias_GhNN = bias_GhNM[..., :N]
        return bias_GhNN if maps == 1 else bias_GhNN.flatten(0, 1)[None]


class ImageCrossAttention(nn.Module):
    """Gated attention of image tokens to text tokens, on the whole map: every image token sees every text token, so
    windows would make no difference."""

    def __init__(self, dim: int, text_dim: int, heads: int, norm_query: bool, *, gated: bool = True):
        super().__init__()
        self.heads = heads
        self.norm = LayerNorm(dim) if norm_query else nn.Identity()
        self.query = Linear(dim, dim)
        self.key_value = Linear(text_dim, 2 * dim)
        self.proj = Linear(dim, dim)
        self.alpha = gate(gated)

    def forward(self, z_BHWC: Tensor, text_BTC: Tensor, mask_B11T: Tensor) -> Tensor:
        """Adds the gated term to the self-attention output `z` (after its projection, before the residual).

        `text_BTC` is the current text state; `mask_B11T` bool, True for real tokens, or what is added to logits. `z`
        may be of fewer maps (see `SwinBlock.forward`).
        """
        _, H, W, C = z_BHWC.shape
        h, d = self.heads, C // self.heads
        texts = len(text_BTC)
        query = self.query(self.norm(z_BHWC))
        q_MhNd = query.view(-1, H * W, h, d).transpose(1, 2)
        q_BhNd = repeat_for_texts(q_MhNd, texts)
        kv_BT2hd = self.key_value(text_BTC).view(texts, -1, 2, h, d)
        k_BhTd, v_BhTd = kv_BT2hd.permute(2, 0, 3, 1, 4).unbind(0)
        out_BhNd = F.scaled_dot_product_attention(q_BhNd, k_BhTd, v_BhTd, attn_mask=mask_B11T)
        out_BHWC = out_BhNd.transpose(1, 2).reshape(texts, H, W, C)
        term_BHWC = self.proj(out_BHWC)
        if self.alpha is not None:
            term_BHWC = self.alpha * term_BHWC
        return repeat_for_texts(z_BHWC, texts) + term_BHWC


class MergedText(NamedTuple):
    """What merged attention shows image tokens of a text. `key_values`: (B, h, T, d); `mask`: bool (B, 1, 1, T), True
    for real tokens, or what is added to logits; `alpha`: the gate, None without one."""

    key_values: KeyValues
    mask: Tensor
    alpha: Tensor | None

    def for_windows(self, windows: int, *, heads: int) -> "MergedText":
        """For every window of each map, which stand beside the maps (`heads` is h) or beside the heads (G*h)."""
        keys, values = (_repeat_for_windows(x, windows, heads) for x in self.key_values)
        texts, h = self.key_values.keys.shape[:2]
        mask_Bh1T = self.mask.expand(texts, h, 1, -1)
        return MergedText(KeyValues(keys, values), _repeat_for_windows(mask_Bh1T, windows, heads), self.alpha)


def _repeat_for_windows(x_Bhij: Tensor, windows: int, heads: int) -> Tensor:
    """(B, h, i, j) -> (B*G, h, i, j) or (B, G*h, i, j), whichever has so many `heads`."""
    x_BGhij = x_Bhij[:, None].expand(-1, windows, -1, -1, -1)
    return x_BGhij.reshape(-1, heads, *x_Bhij.shape[2:])


class ImageMergedAttention(nn.Module):
    """Keys and values of text tokens that join those of each window: one attention over both modalities, with the
    window attention's own queries and projection."""

    def __init__(self, dim: int, text_dim: int, heads: int, *, gated: bool = True):
        super().__init__()
        self.heads = heads
        self.text_key_value = Linear(text_dim, 2 * dim)
        self.alpha = gate(gated)

    def forward(self, text_BTC: Tensor, mask_B11T: Tensor) -> MergedText:
        """Text states and mask, as in `MergedText` -> what `WindowAttention` takes."""
        kv_BT2hd = self.text_key_value(text_BTC).unflatten(2, (2, self.heads, -1))
        k_BhTd, v_BhTd = kv_BT2hd.permute(2, 0, 3, 1, 4).unbind(0)
        return MergedText(KeyValues(k_BhTd, v_BhTd), mask_B11T, self.alpha)


def repeat_for_texts(x: Tensor, texts: int) -> Tensor:
    """(M, …) of M maps -> (texts, …), the copies of one map side by side; the tensor itself where M is `texts`."""
    if len(x) == texts:
        return x
    return x.repeat_interleave(texts // len(x), 0)


class SwinBlock(nn.Module):
    """Window attention, which may look at the text too, and MLP, pre-norm, with drop path."""

    def __init__(self, config: FiberConfig, stage: int, block: int, drop_path: float, fused: bool):
        super().__init__()
        image = config.image
        dim, heads = image.dims[stage], image.heads[stage]
        window = image.window_of(stage)
        shift = window // 2 if block % 2 else 0
        self.norm1 = LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window, shift, image.fixed_window)
        self.cross = _image_fusion(config, dim, heads) if fused else None
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * image.mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self,
        x_BHWC: Tensor,
        text_BTC: Tensor | None = None,
        mask_B11T: Tensor | None = None,
        attended_BHWC: Tensor | None = None,
    ) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C); without text the block is a plain Swin block.

        The texts may be K for each map, those of one map side by side: maps (M, H, W, C) then give (M*K, H, W, C), and
        what does not depend on the text is computed once a map. attended: what `within_windows` gives, where it is
        there.
        """
        x = self._attend(x_BHWC, text_BTC, mask_B11T, attended_BHWC)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def within_windows(self, x_BHWC: Tensor) -> Tensor:
        """The block's attention before it looks at a text or joins the residual: the same shape."""
        attended: Tensor = self.attn(self.norm1(x_BHWC))
        return attended

    def mean(self, x_BHWC: Tensor, text_BTC: Tensor, mask_B11T: Tensor, attended_BHWC: Tensor | None = None) -> Tensor:
        """The mean of `forward` over the map, (B, 1, 1, C). It commutes with the MLP's second linear map, which then
        costs 1/(H*W)."""
        x = self._attend(x_BHWC, text_BTC, mask_B11T, attended_BHWC)
        hidden = self.mlp.act(self.mlp.fc1(self.norm2(x)))
        mean_hidden = hidden.mean((1, 2), keepdim=True)
        mlp = self.mlp.fc2(mean_hidden)
        return x.mean((1, 2), keepdim=True) + self.drop_path(mlp)

    def _attend(
        self, x_BHWC: Tensor, text_BTC: Tensor | None, mask_B11T: Tensor | None, attended_BHWC: Tensor | None
    ) -> Tensor:
        if text_BTC is not None and isinstance(self.cross, ImageMergedAttention):
            x = self.norm1(x_BHWC)
            z = self.attn(repeat_for_texts(x, len(text_BTC)), self.cross(text_BTC, mask_B11T))
        else:
            z = self.within_windows(x_BHWC) if attended_BHWC is None else attended_BHWC
            if text_BTC is not None:
                assert self.cross is not None, "this block is not fused"
                z = self.cross(z, text_BTC, mask_B11T)
        return repeat_for_texts(x_BHWC, len(z)) + self.drop_path(z)


def _image_fusion(config: FiberConfig, dim: int, heads: int) -> ImageCrossAttention | ImageMergedAttention:
    """How a fused block of `dim` channels looks at the text."""
    text_dim, gated = config.text.hidden, config.fusion_gate
    if config.fusion_attention == "merged":
        return ImageMergedAttention(dim, text_dim, heads, gated=gated)
    return ImageCrossAttention(dim, text_dim, heads, config.norm_image_query, gated=gated)


class SwinStage(nn.Module):
    """Blocks of one resolution; `merge` halves the map on the way to the next stage, nothing after the last."""

    def __init__(self, config: FiberConfig, stage: int, drop_path: list[float], fused_blocks: set[int]):
        super().__init__()
        self.blocks: ModuleSequence[SwinBlock] = ModuleSequence()
        for block, rate in enumerate(drop_path):
            self.blocks.append(SwinBlock(config, stage, block, rate, block in fused_blocks))
        dims = config.image.dims
        last = stage + 1 == len(dims)
        self.merge = nn.Identity() if last else PatchMerging(dims[stage], dims[stage + 1])

    def ends_with(self, block: int) -> bool:
        """Whether this block is the stage's last."""
        return block + 1 == len(self.blocks)


class Swin(nn.Module):
    """The image tower's parts. The encoder in `fusion.py` decides which run alone and which run fused."""

    def __init__(self, config: FiberConfig):
        super().__init__()
        image = config.image
        self.patch_embed = _patch_embed(image)
        self.position = _position_embedding(config) if image.position_embedding else None
        rates = iter(_drop_path_rates(image.drop_path, blocks=sum(image.depths)))
        self.stages: ModuleSequence[SwinStage] = ModuleSequence()
        for stage, depth in enumerate(image.depths):
            fused_blocks = {pair.block for pair in config.fused_pairs if pair.stage == stage}
            stage_rates = list(islice(rates, depth))
            self.stages.append(SwinStage(config, stage, stage_rates, fused_blocks))
        #: Applied on the way to the ITC pooler only; fused passes and captioning read the raw stream.
        self.norm: nn.Module = LayerNorm(image.dims[-1])
        initialise(self, config.init_std)

    def tokens(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) to what the first block reads: (B, H / patch, W / patch, C)."""
        tokens: Tensor = self.patch_embed(pixels)
        return tokens if self.position is None else self.position(tokens)


def _position_embedding(config: FiberConfig) -> PositionEmbedding:
    height, width = (side // config.image.patch for side in config.image_size)
    return PositionEmbedding(height, width, config.image.dims[0])


def _patch_embed(image: ImageConfig) -> nn.Module:
    """Pixels (B, 3, H, W) to tokens (B, H / patch, W / patch, C)."""
    channels = image.dims[0]
    if image.stem == "convolutions":
        return ConvolutionalStem(image.patch, channels)
    return PatchEmbed(image.patch, channels)


def _drop_path_rates(last: float, blocks: int) -> list[float]:
    """Growing evenly from 0 at the first block to `last` at the last."""
    return [last * block / max(1, blocks - 1) for block in range(blocks)]
