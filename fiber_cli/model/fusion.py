"""The fused encoder: two towers whose last blocks can look at each other (paper section 3.1).

Everything the toolkit does is one of five calls: `image_stem` and `text_stem` (once per image and per text),
`image_top` and `text_top` (fusion off), `fuse` (fusion on), and `decode` (causal text over an image memory).
Shapes: B batch, H and W sides of the token map, C channels, L text length, N image tokens.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fiber_cli.errors import UserError
from fiber_cli.model.config import FiberConfig
from fiber_cli.model.init import initialise
from fiber_cli.model.swin import Swin, SwinBlock
from fiber_cli.model.text import Roberta, TextLayer


class ImageStem(NamedTuple):
    """`map` (B, H, W, C): the token map entering the first fused block. `earlier`: outputs of the stages that ended
    below it, each (B, H_s, W_s, C_s)."""

    map: Tensor
    earlier: tuple[Tensor, ...] = ()


class TextStem(NamedTuple):
    """`tokens` (B, L, C) entering the first fused layer; `mask` bool (B, L), True for real tokens."""

    tokens: Tensor
    mask: Tensor


class Fused(NamedTuple):
    """`pyramid`: stage outputs (B, H_s, W_s, C_s), unnormalised; `text` (B, L, C), padding positions included;
    `mask` bool (B, L)."""

    pyramid: tuple[Tensor, ...]
    text: Tensor
    mask: Tensor


class DecoderCache:
    """What captioning keeps between steps: per layer self-attention keys and values (`past` of `TextLayer.forward`),
    per fused layer those of the image memory, and how many real tokens each row has seen."""

    def __init__(self, layers: int):
        self.layers: list[list[Tensor]] = [[] for _ in range(layers)]
        self.memory: dict[int, tuple[Tensor, Tensor]] = {}
        self.seen_B1: Tensor | int = 0
        self.real_BL: Tensor | None = None

    def reorder(self, rows: Tensor) -> None:
        """Keep the given rows (int64 (rows,)), repeated or permuted, of every self-attention cache: the survivors of a
        beam step. Beams must stay beside their image."""
        self.layers = [[kept[rows] for kept in layer] for layer in self.layers]
        self.seen_B1, self.real_BL = self.seen_B1[rows], self.real_BL[rows]


class FusedEncoder(nn.Module):
    """Swin and RoBERTa with gated cross-attention in their last `fusion_layers` blocks.

    `captioning=True` adds the projections that bring the image memory to the width each text layer attends to.
    """

    def __init__(self, config: FiberConfig, *, captioning: bool = False):
        super().__init__()
        self.config = config
        self.image = Swin(config)
        self.text = Roberta(config)
        for name, parameter in self.named_parameters():
            if name.endswith(".alpha"):
                nn.init.constant_(parameter, config.gate_init)
        blocks = [(s, b) for s, depth in enumerate(config.image.depths) for b in range(depth)]
        self._stem_blocks = blocks[: len(blocks) - config.fusion_layers]
        self._top_blocks = blocks[len(blocks) - config.fusion_layers :]
        self._stem_layers = config.text.layers - config.fusion_layers
        dims, projected = config.image.dims, config.fused_pairs if captioning else ()
        widths = {str(layer): dims[stage] for stage, _, layer in projected if dims[stage] != dims[-1]}
        self.memory_proj = nn.ModuleDict({layer: nn.Linear(dims[-1], width) for layer, width in widths.items()})
        initialise(self.memory_proj, config.init_std)
        #: Whether to recompute every block's inside in the backward pass instead of keeping it.
        self.checkpoint_activations = False

    def image_stem(self, pixels: Tensor) -> ImageStem:
        """Normalised RGB float (B, 3, H, W), sides a multiple of 32 pixels (`config.multiple`) -> ImageStem."""
        multiple = self.config.multiple
        if pixels.shape[-2] % multiple or pixels.shape[-1] % multiple:
            raise UserError(
                f"image of {pixels.shape[-2]}x{pixels.shape[-1]} (height x width): sides must be multiples of {multiple}"
            )
        x, stages = self._image_blocks(self.image.patch_embed(pixels), self._stem_blocks)
        return ImageStem(x, stages)

    def text_stem(self, ids: Tensor, mask: Tensor) -> TextStem:
        """ids int64 (B, L), mask bool (B, L) True for real tokens -> TextStem."""
        return TextStem(self._text_layers(self.text.embeddings(ids), mask, slice(self._stem_layers)), mask)

    def image_top(self, stem: ImageStem) -> Tensor:
        """Remaining image blocks, fusion off: (B, H, W, C) of the last stage, before the final LayerNorm."""
        return self._image_blocks(stem.map, self._top_blocks)[0]

    def text_top(self, stem: TextStem) -> Tensor:
        """Remaining text layers, fusion off, every output LayerNorm on: (B, L, C)."""
        return self._text_layers(*stem, slice(self._stem_layers, None))

    def fuse(
        self,
        image: ImageStem,
        text: TextStem,
        *,
        last_norm: bool = False,
        image_output: bool = True,
        pooled: bool = False,
    ) -> Fused:
        """Remaining blocks with fusion on; each pair reads the other modality's state from before the pair.

        The texts may be K for each image, those of one image side by side: M images give M*K rows, and what the first
        pair computes from the image alone is computed once an image.
        `last_norm`: apply the last text layer's output LayerNorm (fine stage) or not (coarse stage).
        `image_output=False` skips the last image block, which no text layer reads, and leaves its stage out of the
        pyramid (MLM needs text alone).
        `pooled=True` computes what pooling heads read and no more: the pyramid's last map is its mean (B, 1, 1, C), the
        text its first token (B, 1, C).
        """
        x, tokens, pyramid = image.map, text.tokens, list(image.earlier)
        keys = text.mask[:, None, None, :]
        pairs = self.config.fused_pairs
        for stage, block, layer in pairs:
            last = (stage, block, layer) == pairs[-1]
            options = {"last_norm": last_norm or not last, "first": 1 if last and pooled else None}
            before = tokens
            tokens = self._run(self.text.layers[layer], before, keys, x.flatten(1, 2), **options)
            if last and not image_output:
                break
            module = self.image.stages[stage]
            step = module.blocks[block].mean if last and pooled else module.blocks[block]
            x = self._run(step, x, before, text.mask)
            if block + 1 == len(module.blocks):
                pyramid.append(x)
                x = module.merge(x)
        return Fused(tuple(pyramid), tokens, text.mask)

    def decode(
        self, image_memory: Tensor, ids: Tensor, cache: DecoderCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Causal text layers over an image memory (captioning; image-to-text cross-attention only).

        image_memory: (M, N, C) of `image_top`, flattened; ids: int64 (M*K, L), rows of one image contiguous;
        mask: bool (M*K, L) True for real tokens, or None where no key needs hiding. With a `cache`, ids are the
        tokens that follow those already seen, and only they are computed. Returns (M*K, L, C), last LayerNorm on.
        """
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        seen = 0
        if cache is not None:
            seen = cache.seen_B1
            cache.seen_B1 = seen + (ids != self.config.text.pad_id).sum(1, keepdim=True)
            if cache.real_BL is not None:
                real = torch.cat([cache.real_BL, real], 1)
            cache.real_BL = real
        x = self.text.embeddings(ids, seen)
        past = real.shape[1] - ids.shape[1]
        causal = torch.ones(ids.shape[1], real.shape[1], dtype=torch.bool, device=ids.device).tril(past)
        visible = causal[None, None] & real[:, None, None, :]
        for i, layer in enumerate(self.text.layers):
            memory = self._layer_memory(i, image_memory, cache) if layer.cross is not None else None
            x = self._run(layer, x, visible, memory=memory, past=None if cache is None else cache.layers[i])
        return x

    def _layer_memory(self, layer: int, image_memory: Tensor, cache: DecoderCache | None) -> tuple[Tensor, Tensor]:
        kept = {} if cache is None else cache.memory
        if layer not in kept:
            image = self.memory_proj[str(layer)](image_memory) if str(layer) in self.memory_proj else image_memory
            kept[layer] = self.text.layers[layer].cross.memory(image)
        return kept[layer]

    def _image_blocks(self, x: Tensor, blocks: list[tuple[int, int]]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run blocks in order, merging at the end of each stage; also return the outputs of the stages that end."""
        ended = []
        for stage, block in blocks:
            module = self.image.stages[stage]
            x = self._run(module.blocks[block], x)
            if block + 1 == len(module.blocks):
                ended.append(x)
                x = module.merge(x)
        return x, tuple(ended)

    def _text_layers(self, x: Tensor, mask: Tensor, which: slice) -> Tensor:
        for layer in self.text.layers[which]:
            x = self._run(layer, x, mask[:, None, None, :])
        return x

    def _run(self, module: Callable[..., Tensor], *args, **kwargs) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            return checkpoint(module, *args, use_reentrant=False, **kwargs)
        return module(*args, **kwargs)

    def compile_blocks(self) -> None:
        """torch.compile every block and layer in place; parameter names stay as they are."""
        for module in self.modules():
            if isinstance(module, SwinBlock | TextLayer):
                module.compile()
