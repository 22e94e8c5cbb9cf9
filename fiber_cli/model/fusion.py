"""The fused encoder: two towers whose last blocks can look at each other (paper section 3.1).

Everything the toolkit does is one of five calls: `image_stem` and `text_stem` (once per image and per text),
`image_top` and `text_top` (fusion off), `fuse` (fusion on), and `decode` (causal text over an image memory).
Shapes: B batch, H and W sides of the token map, C channels, L text length, M images, N image tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from types import MethodType
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fiber_cli.errors import UserError
from fiber_cli.model.attention_bias import key_bias
from fiber_cli.model.config import BlockPosition, FiberConfig, FusedPair
from fiber_cli.model.decoder_cache import DecoderCache, ImageMemory, KeyValues, PairedMemory
from fiber_cli.model.init import initialise
from fiber_cli.model.linear import Linear
from fiber_cli.model.swin import Swin, repeat_for_texts
from fiber_cli.model.text import Roberta, TextLayer
from fiber_cli.model.top_fusion import TopFusion

Result = TypeVar("Result")


class FirstPair(NamedTuple):
    """What the first fused pair makes of images alone, which is the same whatever text it sees and when it sees none.

    `attended` (B, H, W, C): the block's attention inside its windows; None where that is merged with the one to the
    text. `key_values`: what the text layer looks at, (B, h, N, d) each.
    """

    attended: Tensor | None
    key_values: KeyValues

    def rows(self, numbers: slice | Tensor) -> "FirstPair":
        """Of the images that a slice or an index, int64, names."""
        attended = None if self.attended is None else self.attended[numbers]
        keys, values = self.key_values
        return FirstPair(attended, KeyValues(keys[numbers], values[numbers]))

    def split(self, counts: Sequence[int]) -> list["FirstPair"]:
        """Of so many images each."""
        attended = [None] * len(counts) if self.attended is None else self.attended.split(counts)
        keys, values = (x.split(counts) for x in self.key_values)
        return [FirstPair(a, KeyValues(k, v)) for a, k, v in zip(attended, keys, values, strict=True)]

    @classmethod
    def joined(cls, parts: Sequence["FirstPair"]) -> "FirstPair":
        """One after another."""
        attended = [part.attended for part in parts if part.attended is not None]
        keys = torch.cat([part.key_values.keys for part in parts])
        values = torch.cat([part.key_values.values for part in parts])
        return cls(torch.cat(attended) if attended else None, KeyValues(keys, values))


class ImageStem(NamedTuple):
    """`map` (B, H, W, C): the token map entering the first fused block. `earlier`: outputs of the stages that ended
    below it, each (B, H_s, W_s, C_s). `first`: see `FusedEncoder.with_first_pair`; None: computed in every pass."""

    map: Tensor
    earlier: tuple[Tensor, ...] = ()
    first: FirstPair | None = None

    def rows(self, numbers: slice | Tensor) -> "ImageStem":
        """Of the images that a slice or an index, int64, names."""
        earlier = tuple(stage[numbers] for stage in self.earlier)
        return ImageStem(self.map[numbers], earlier, None if self.first is None else self.first.rows(numbers))

    def split(self, counts: Sequence[int]) -> list["ImageStem"]:
        """So many images each. One gradient is put together of theirs, where those of `rows` would be added up."""
        earlier = [stage.split(counts) for stage in self.earlier]
        firsts = [None] * len(counts) if self.first is None else self.first.split(counts)
        maps = self.map.split(counts)
        return [ImageStem(maps[i], tuple(stage[i] for stage in earlier), firsts[i]) for i in range(len(counts))]

    @classmethod
    def joined(cls, parts: Sequence["ImageStem"]) -> "ImageStem":
        """One after another, without the earlier stages. What one of them lacks of the first pair all do without."""
        if len(parts) == 1:
            return parts[0]._replace(earlier=())
        firsts = [part.first for part in parts if part.first is not None]
        first = FirstPair.joined(firsts) if len(firsts) == len(parts) else None
        return cls(torch.cat([part.map for part in parts]), first=first)


class TextStem(NamedTuple):
    """`tokens` (B, L, C) entering the first fused layer; `mask` bool (B, L), True for real tokens."""

    tokens: Tensor
    mask: Tensor

    def split(self, counts: Sequence[int]) -> list["TextStem"]:
        """So many texts each."""
        return [TextStem(*parts) for parts in zip(self.tokens.split(counts), self.mask.split(counts), strict=True)]

    @classmethod
    def joined(cls, parts: Sequence["TextStem"]) -> "TextStem":
        """One after another, with as much padding as the longest."""
        if len(parts) == 1:
            return parts[0]
        length = max(part.mask.shape[1] for part in parts)
        padded = [part.padded(length) for part in parts]
        return cls(torch.cat([part.tokens for part in padded]), torch.cat([part.mask for part in padded]))

    def padded(self, length: int) -> "TextStem":
        """With padding up to a length of L."""
        missing = length - self.mask.shape[1]
        if not missing:
            return self
        return TextStem(F.pad(self.tokens, (0, 0, 0, missing)), F.pad(self.mask, (0, missing)))


class FusedPass(NamedTuple):
    """Images and texts that are fused, and what is computed of them; see `FusedEncoder.fuse`."""

    image: ImageStem
    text: TextStem
    last_norm: bool = False
    image_output: bool = True
    pooled: bool = False


class Fused(NamedTuple):
    """`pyramid`: stage outputs (B, H_s, W_s, C_s), unnormalised; `text` (B, L, C), padding positions included;
    `mask` bool (B, L). Of fusion on top the last map and the text have the joint width."""

    pyramid: tuple[Tensor, ...]
    text: Tensor
    mask: Tensor


class FusedEncoder(nn.Module):
    """Swin and RoBERTa that look at each other: in their last `fusion_layers` blocks, in so many layers on top of both,
    or, with 0, not at all.

    `captioning=True` adds the projections that bring the image memory to the width each text layer attends to; with
    `paired_memory=True` each reads the map of its own block instead (see `memory`), and none are needed.
    """

    def __init__(self, config: FiberConfig, *, captioning: bool = False, paired_memory: bool = False):
        super().__init__()
        self.config = config
        self.image = Swin(config)
        self.text = Roberta(config)
        for name, parameter in self.named_parameters():
            if name.endswith(".alpha"):
                nn.init.constant_(parameter, config.gate_init)
        blocks = config.image.block_positions
        fused_blocks = len(config.fused_pairs)
        stem_blocks = len(blocks) - fused_blocks
        self._stem_blocks, self._top_blocks = blocks[:stem_blocks], blocks[stem_blocks:]
        self._stem_layers = config.text.layers - fused_blocks
        self.top = TopFusion(config) if config.top_layers else None
        self.paired_memory = paired_memory
        if paired_memory and not fused_blocks:
            raise UserError(
                "captions in the fused form pair text layers with image blocks, of which none are fused: set "
                "model.fusion to backbone and model.fusion_layers above 0, or task.form to seq2seq"
            )
        self.memory_proj = nn.ModuleDict()
        if captioning and not paired_memory:
            self.memory_proj.update(_memory_projections(config))
        initialise(self.memory_proj, config.init_std)
        #: Whether to recompute every block's inside in the backward pass instead of keeping it.
        self.checkpoint_activations = False
        #: The compiled form of a method of a block, where blocks are compiled; see `model.compiling`.
        self.compiled_method: Callable[[MethodType], Callable[..., Any]] | None = None

    def image_stem(self, pixels: Tensor) -> ImageStem:
        """Normalised RGB float (B, 3, H, W), sides a multiple of 32 pixels (`config.multiple`) -> ImageStem."""
        height, width = pixels.shape[-2:]
        multiple = self.config.multiple
        if height % multiple or width % multiple:
            raise UserError(f"image of {height}x{width} (height x width): sides must be multiples of {multiple}")
        x, stages = self._image_blocks(self.image.tokens(pixels), self._stem_blocks)
        return ImageStem(x, stages)

    def text_stem(self, ids: Tensor, mask: Tensor) -> TextStem:
        """ids int64 (B, L), mask bool (B, L) True for real tokens -> TextStem."""
        layers = self.text.layers[: self._stem_layers]
        tokens = self._text_layers(self.text.embeddings(ids), mask, layers)
        return TextStem(tokens, mask)

    def image_top(self, stem: ImageStem) -> Tensor:
        """Remaining image blocks, fusion off: (B, H, W, C) of the last stage, before the final LayerNorm."""
        attended = None if stem.first is None else stem.first.attended
        x, _ = self._image_blocks(stem.map, self._top_blocks, attended)
        return x

    def with_first_pair(self, image: ImageStem) -> ImageStem:
        """The stem with what the first fused pair makes of the images alone, for several passes over them, fused or
        not; as it is where nothing in the backbone is fused."""
        if self.top is not None or not self.config.fused_pairs:
            return image
        pair = self.config.fused_pairs[0]
        block = self.image.stages[pair.stage].blocks[pair.block]
        cross = self.text.layers[pair.layer].cross
        assert cross is not None, "the layer of a fused pair looks at the image"
        attended = None
        if self.config.fusion_attention == "co":
            attended = self._run(block.within_windows, image.map)
        key_values = self._run(cross.project_image, image.map.flatten(1, 2))
        return image._replace(first=FirstPair(attended, key_values))

    def text_top(self, stem: TextStem, *, pooled: bool = False) -> Tensor:
        """Remaining text layers, fusion off, every output LayerNorm on: (B, L, C). `pooled=True` computes the first
        token alone, (B, 1, C), which pooling heads read."""
        layers = self.text.layers[self._stem_layers :]
        if not pooled or not len(layers):
            tokens = self._text_layers(stem.tokens, stem.mask, layers)
            return tokens[:, :1] if pooled else tokens
        before = self._text_layers(stem.tokens, stem.mask, layers[:-1])
        return self._run(layers[-1], before, _key_bias(stem), first=1)

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
        [fused] = self.fuse_together([FusedPass(image, text, last_norm, image_output, pooled)])
        return fused

    def fuse_together(self, passes: Sequence[FusedPass]) -> list[Fused]:
        """`fuse` of each. Several, which have one text for each image then, go through all pairs but the last as one.
        Texts come out as long as the longest of all."""
        if self.top is not None:
            return [self._fuse_on_top(self.top, each) for each in passes]
        if not passes or not self.config.fused_pairs:
            return [_unfused(each) for each in passes]
        *pairs, last_pair = self.config.fused_pairs
        image = ImageStem.joined([each.image for each in passes])
        text = TextStem.joined([each.text for each in passes])
        text_keys = _key_bias(text)
        for pair in pairs:
            image, text = self._fuse_pair(pair, image, text, text_keys)
        states = [(image, text, text_keys)]
        if len(passes) > 1:
            counts = [len(each.text.tokens) for each in passes]
            states = list(zip(image.split(counts), text.split(counts), text_keys.split(counts), strict=True))
        outputs = []
        for each, state in zip(passes, states, strict=True):
            fused_image, fused_text = self._fuse_pair(
                last_pair, *state, last_norm=each.last_norm, image_output=each.image_output, pooled=each.pooled
            )
            pyramid = each.image.earlier + fused_image.earlier
            outputs.append(Fused(pyramid, fused_text.tokens, fused_text.mask))
        return outputs

    def _fuse_pair(
        self,
        pair: FusedPair,
        image: ImageStem,
        text: TextStem,
        text_keys: Tensor,
        *,
        last_norm: bool = True,
        image_output: bool = True,
        pooled: bool = False,
    ) -> tuple[ImageStem, TextStem]:
        """What follows on a fused pair, from what enters it. A stage that ends is put behind the earlier ones."""
        seen: Tensor | KeyValues = image.map.flatten(1, 2)
        attended = None
        if image.first is not None:
            attended, seen = image.first
        layer = self.text.layers[pair.layer]
        first = 1 if pooled else None
        tokens = self._run(layer, text.tokens, text_keys, seen, last_norm=last_norm, first=first)
        fused_text = TextStem(tokens, text.mask)
        if not image_output:
            return image, fused_text
        stage = self.image.stages[pair.stage]
        block = stage.blocks[pair.block]
        x = self._run(block.mean if pooled else block, image.map, text.tokens, text_keys, attended)
        if not stage.ends_with(pair.block):
            return ImageStem(x, image.earlier), fused_text
        return ImageStem(stage.merge(x), (*image.earlier, x)), fused_text

    def _fuse_on_top(self, top: TopFusion, each: FusedPass) -> Fused:
        """`fuse` by layers on top, of both modalities in parallel too."""
        image, text = each.image, each.text
        _, height, width, _ = image.map.shape
        text_keys = _key_bias(text)
        tokens = top.text_in(text.tokens)
        x_MND = top.image_in(self.image.norm(image.map).flatten(1, 2))
        x = repeat_for_texts(x_MND, len(tokens))
        stages = [repeat_for_texts(stage, len(tokens)) for stage in image.earlier[:-1]]
        layers = list(zip(top.image_layers, top.text_layers, strict=True))
        for number, (image_layer, text_layer) in enumerate(layers, 1):
            is_last = number == len(layers)
            before = tokens
            tokens = self._run(text_layer, before, text_keys, x, None, first=1 if each.pooled and is_last else None)
            if is_last and not each.image_output:
                return Fused(tuple(stages), tokens, text.mask)
            x = self._run(image_layer, x, None, before, text_keys)
        map_BHWD = x.unflatten(1, (height, width))
        if each.pooled:
            map_BHWD = map_BHWD.mean((1, 2), keepdim=True)
        return Fused((*stages, map_BHWD), tokens, text.mask)

    def memory(self, image: ImageStem) -> ImageMemory:
        """What `decode` reads of images that see no text. In the form of a sequence-to-sequence model all layers read
        the last map, (M, N, C); in the fused form (`paired_memory`) each reads what it reads in `fuse`, the map before
        its own block."""
        if not self.paired_memory:
            return self.image_top(image).flatten(1, 2)
        x = image.map
        memories: dict[int, Tensor] = {}
        for pair in self.config.fused_pairs:
            memories[pair.layer] = x.flatten(1, 2)
            if pair == self.config.fused_pairs[-1]:
                break
            stage = self.image.stages[pair.stage]
            x = self._run(stage.blocks[pair.block], x)
            if stage.ends_with(pair.block):
                x = stage.merge(x)
        return PairedMemory(memories)

    def decode(
        self, image_memory: ImageMemory, ids: Tensor, cache: DecoderCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Causal text layers over an image memory (captioning; image-to-text cross-attention only).

        image_memory: of M images, see `memory`; ids: int64 (M*K, L), rows of one image contiguous;
        mask: bool (M*K, L) True for real tokens, or None where no key needs hiding. With a `cache`, ids are the
        tokens that follow those already seen, and only they are computed. Returns (M*K, L, C), last LayerNorm on, of
        fusion on top (M*K, L, D).
        """
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        seen: Tensor | int = 0
        if cache is not None:
            real, seen = cache.add_tokens(real, ids != self.config.text.pad_id)
        x = self.text.embeddings(ids, seen)
        visible = key_bias(_causal_mask(real, queries=ids.shape[1]), like=x)
        for number, layer in enumerate(self.text.layers):
            layer_cache = None if cache is None else cache.layers[number]
            memory = self._layer_memory(number, image_memory, cache)
            x = self._run(layer, x, visible, memory, cache=layer_cache)
        if self.top is not None:
            assert isinstance(image_memory, Tensor)
            x = self._decode_on_top(self.top, image_memory, x, visible, cache)
        return x

    def _decode_on_top(
        self, top: TopFusion, image_memory: Tensor, x: Tensor, visible: Tensor, cache: DecoderCache | None
    ) -> Tensor:
        """The text layers on top, which all read the image tower's last map: its own layers see the text, of which a
        caption's later tokens are not there yet."""
        layers = dict(enumerate(top.text_layers, len(self.text.layers)))
        key_values = {} if cache is None else cache.image_kv
        if not key_values.keys() >= layers.keys():
            memory = top.image_in(self.image.norm(image_memory))
            for number, layer in layers.items():
                key_values[number] = layer.cross.project(memory)
        x = top.text_in(x)
        for number, layer in layers.items():
            layer_cache = None if cache is None else cache.layers[number]
            x = self._run(layer, x, visible, key_values[number], None, cache=layer_cache)
        return x

    def _layer_memory(self, number: int, image_memory: ImageMemory, cache: DecoderCache | None) -> KeyValues | None:
        """Keys and values of the image memory for a text layer, from the cache where they are in it; None for a layer
        that is not fused."""
        cross = self.text.layers[number].cross
        if cross is None:
            return None
        if cache is not None and number in cache.image_kv:
            return cache.image_kv[number]
        memory = image_memory.layers[number] if isinstance(image_memory, PairedMemory) else image_memory
        if str(number) in self.memory_proj:
            memory = self.memory_proj[str(number)](memory)
        key_values = cross.project_image(memory)
        if cache is not None:
            cache.image_kv[number] = key_values
        return key_values

    def _image_blocks(
        self, x: Tensor, positions: Sequence[BlockPosition], attended: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run blocks in order, merging at the end of each stage; also return the outputs of the stages that end.
        attended: of the first of them, see `SwinBlock.forward`."""
        outputs = []
        for position in positions:
            stage = self.image.stages[position.stage]
            x = self._run(stage.blocks[position.block], x, None, None, attended)
            attended = None
            if stage.ends_with(position.block):
                outputs.append(x)
                x = stage.merge(x)
        return x, tuple(outputs)

    def _text_layers(self, x: Tensor, mask: Tensor, layers: Iterable[TextLayer]) -> Tensor:
        bias = _key_bias(TextStem(x, mask))
        for layer in layers:
            x = self._run(layer, x, bias)
        return x

    def _run(self, module: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        if self.compiled_method is not None and isinstance(module, MethodType):
            module = self.compiled_method(module)
        if self.checkpoint_activations and torch.is_grad_enabled():
            result: Result = checkpoint(module, *args, use_reentrant=False, **kwargs)
            return result
        return module(*args, **kwargs)


def _key_bias(text: TextStem) -> Tensor:
    """What all attention to a text's tokens adds to its logits, (B, 1, 1, L), once for all layers."""
    return key_bias(text.mask[:, None, None, :], like=text.tokens)


def _unfused(each: FusedPass) -> Fused:
    """What `fuse` gives where nothing is fused: the stems are the whole towers."""
    stages = each.image.earlier or (each.image.map,)
    tokens, mask = each.text
    pyramid = [repeat_for_texts(stage, len(tokens)) for stage in stages]
    if each.pooled:
        pyramid[-1] = pyramid[-1].mean((1, 2), keepdim=True)
        tokens = tokens[:, :1]
    return Fused(tuple(pyramid), tokens, mask)


def _memory_projections(config: FiberConfig) -> dict[str, nn.Module]:
    """Fused layer, as a string -> projection of the image memory, where the layer attends to another width."""
    dims = config.image.dims
    projections: dict[str, nn.Module] = {}
    for pair in config.fused_pairs:
        width = dims[pair.stage]
        if width != dims[-1]:
            projections[str(pair.layer)] = Linear(dims[-1], width)
    return projections


def _causal_mask(real_BL: Tensor, queries: int) -> Tensor:
    """Which of L tokens the last so many of them may see: the real ones up to themselves, bool (B, 1, queries, L)."""
    length = real_BL.shape[1]
    earlier = length - queries
    causal_QL = torch.ones(queries, length, dtype=torch.bool, device=real_BL.device).tril(earlier)
    return causal_QL & real_BL[:, None, None, :]
