"""RoBERTa text encoder whose later layers can also attend to image tokens.

Shapes: B batch, L text length, C width, M images, N image tokens, h heads, d channels a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.attention_bias import narrowed
from fiber_cli.model.config import FiberConfig, FusionAttention, TextConfig
from fiber_cli.model.decoder_cache import KeyValues, LayerCache
from fiber_cli.model.init import initialise
from fiber_cli.model.linear import Linear
from fiber_cli.model.merged_attention import gate, merged_attention
from fiber_cli.model.module_sequence import ModuleSequence
from fiber_cli.model.norm import LayerNorm


def position_ids(ids_BL: Tensor, pad_id: int, past_B1: Tensor | int = 0) -> Tensor:
    """RoBERTa positions: pad_id + 1 for the first real token, counting real tokens only; pad_id for padding.

    `past_B1` is the number of real tokens that precede these ids (incremental decoding).
    """
    real = (ids_BL != pad_id).long()
    return (real.cumsum(1) + past_B1) * real + pad_id


def split_heads(x_BLC: Tensor, heads: int) -> Tensor:
    """(B, L, C) -> (B, h, L, d)."""
    return x_BLC.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(x_BhLd: Tensor) -> Tensor:
    """Inverse of `split_heads`."""
    return x_BhLd.transpose(1, 2).flatten(2)


class TextEmbeddings(nn.Module):
    """Word + position + token type, normalised."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.pad_id = config.pad_id
        self.word = nn.Embedding(config.vocab, config.hidden, padding_idx=config.pad_id)
        self.position = nn.Embedding(config.positions, config.hidden, padding_idx=config.pad_id)
        self.token_type = nn.Embedding(1, config.hidden)
        self.norm = LayerNorm(config.hidden, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids_BL: Tensor, past_B1: Tensor | int = 0) -> Tensor:
        """int64 (B, L) -> (B, L, C)."""
        positions = position_ids(ids_BL, self.pad_id, past_B1)
        token_type = self.token_type(torch.zeros_like(ids_BL))
        x_BLC = self.word(ids_BL) + token_type + self.position(positions)
        return self.dropout(self.norm(x_BLC))


class TextCrossAttention(nn.Module):
    """Gated attention of text tokens to all image tokens (no mask on the image)."""

    def __init__(self, config: TextConfig, image_dim: int, *, norm_memory: bool = False, gated: bool = True):
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.norm = LayerNorm(image_dim) if norm_memory else nn.Identity()
        self.query = Linear(config.hidden, config.hidden)
        self.key = Linear(image_dim, config.hidden)
        self.value = Linear(image_dim, config.hidden)
        self.proj = Linear(config.hidden, config.hidden)
        self.alpha = gate(gated)

    def project_image(self, image_MNC: Tensor) -> KeyValues:
        """Keys and values of the image tokens, (M, h, N, d) each: computed once for a caption's many steps."""
        memory = narrowed(self.norm(image_MNC))
        keys = split_heads(self.key(memory), self.heads)
        values = split_heads(self.value(memory), self.heads)
        return KeyValues(keys, values)

    def forward(self, a_BLC: Tensor, image: Tensor | KeyValues) -> Tensor:
        """Adds the gated term to the self-attention output `a` (after its projection, before the residual).

        `image`: image tokens (M, N, C), or what `project_image` has made of them. With B = M*K texts, those of one
        image being contiguous (beams), the K share the image's keys and values by standing in the query's length, so
        nothing is repeated.
        """
        k_MhNd, v_MhNd = image if isinstance(image, KeyValues) else self.project_image(image)
        B, L, C = a_BLC.shape
        q_MLC = self.query(a_BLC).view(len(k_MhNd), -1, C)
        q_MhLd = split_heads(q_MLC, self.heads)
        dropout = self.dropout if self.training else 0.0
        out_MhLd = F.scaled_dot_product_attention(q_MhLd, k_MhNd, v_MhNd, dropout_p=dropout)
        out_BLC = self.proj(merge_heads(out_MhLd).reshape(B, L, C))
        term_BLC = F.dropout(out_BLC, self.dropout, self.training)
        if self.alpha is not None:
            term_BLC = self.alpha * term_BLC
        return a_BLC + term_BLC


class TextMergedAttention(nn.Module):
    """Keys and values of image tokens that join those of the text: one attention over both modalities, with the
    layer's own queries and output projection."""

    def __init__(self, config: TextConfig, image_dim: int, *, norm_memory: bool = False, gated: bool = True):
        super().__init__()
        self.heads = config.heads
        self.norm = LayerNorm(image_dim) if norm_memory else nn.Identity()
        self.image_key = Linear(image_dim, config.hidden)
        self.image_value = Linear(image_dim, config.hidden)
        self.alpha = gate(gated)

    def project_image(self, image_MNC: Tensor) -> KeyValues:
        """Keys and values of the image tokens, (M, h, N, d) each."""
        memory = narrowed(self.norm(image_MNC))
        keys = split_heads(self.image_key(memory), self.heads)
        values = split_heads(self.image_value(memory), self.heads)
        return KeyValues(keys, values)

    def forward(self, image: Tensor | KeyValues, texts: int) -> KeyValues:
        """(texts, h, N, d) of image tokens (M, N, C) or of what `project_image` has made of them; the texts of one
        image are contiguous."""
        key_values = image if isinstance(image, KeyValues) else self.project_image(image)
        images = len(key_values.keys)
        if images == texts:
            return key_values
        keys, values = (x.repeat_interleave(texts // images, 0) for x in key_values)
        return KeyValues(keys, values)


class TextLayer(nn.Module):
    """Post-norm transformer layer, which may look at an image too: the gated term of co-attention joins the
    self-attention output before the residual, merged attention takes its place.

    image_dim: channels of the image tokens; None for a layer that is not fused.
    """

    def __init__(
        self,
        config: TextConfig,
        image_dim: int | None,
        *,
        norm_memory: bool = False,
        attention: FusionAttention = "co",
        gated: bool = True,
    ):
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.query = Linear(config.hidden, config.hidden)
        self.key = Linear(config.hidden, config.hidden)
        self.value = Linear(config.hidden, config.hidden)
        self.attn_out = Linear(config.hidden, config.hidden)
        self.attn_norm = LayerNorm(config.hidden, eps=config.norm_eps)
        self.cross: TextCrossAttention | TextMergedAttention | None = None
        if image_dim is not None:
            fusion = TextMergedAttention if attention == "merged" else TextCrossAttention
            self.cross = fusion(config, image_dim, norm_memory=norm_memory, gated=gated)
        self.fc1 = Linear(config.hidden, config.intermediate)
        self.fc2 = Linear(config.intermediate, config.hidden)
        self.out_norm = LayerNorm(config.hidden, eps=config.norm_eps)

    def forward(
        self,
        x_BLC: Tensor,
        mask: Tensor,
        image: Tensor | KeyValues | None = None,
        *,
        last_norm: bool = True,
        cache: LayerCache | None = None,
        first: int | None = None,
    ) -> Tensor:
        """(B, L, C) -> (B, L, C). `mask` is bool, broadcastable to (B, h, L, keys), True where a key may be seen,
        or what is added to the logits (`key_bias`).

        `image`, for a fused layer: see `TextCrossAttention.forward`.
        `last_norm=False` leaves out the output LayerNorm (the coarse stage's last fused layer, as published).
        `cache`: x follows the tokens in it, sees them too, and joins them. `first`: compute the first so many tokens
        alone, (B, first, C), which see all of x.
        """
        x, context = x_BLC[:, :first], narrowed(x_BLC)
        if image is None:
            a = self._attend(context, mask, cache, first)
        elif isinstance(self.cross, TextMergedAttention):
            a = self._attend(context, mask, cache, first, self.cross(image, len(x)))
        else:
            assert self.cross is not None, "this layer is not fused"
            a = self.cross(self._attend(context, mask, cache, first), image)
        x = self.attn_norm(a + x)
        mlp = self.fc2(F.gelu(self.fc1(x)))
        out = F.dropout(mlp, self.dropout, self.training) + x
        return self.out_norm(out) if last_norm else out

    def _attend(
        self, context: Tensor, mask: Tensor, cache: LayerCache | None, first: int | None, image: KeyValues | None = None
    ) -> Tensor:
        """Attention of the `first` tokens of `context` (B, L, C) to all of them, the tokens in the cache, and, where it
        is merged, those of the image."""
        q = split_heads(self.query(context[:, :first]), self.heads)
        k = split_heads(self.key(context), self.heads)
        v = split_heads(self.value(context), self.heads)
        if cache is not None:
            k, v = cache.extend(KeyValues(k, v))
        dropout = self.dropout if self.training else 0.0
        if image is None:
            out_BhLd = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        else:
            assert isinstance(self.cross, TextMergedAttention)
            out_BhLd = merged_attention(q, KeyValues(k, v), mask, image, None, self.cross.alpha, dropout=dropout)
        out_BLC = self.attn_out(merge_heads(out_BhLd))
        return F.dropout(out_BLC, self.dropout, self.training)


class Roberta(nn.Module):
    """The text tower's parts. The encoder in `fusion.py` decides which run alone and which run fused."""

    def __init__(self, config: FiberConfig):
        super().__init__()
        text = config.text
        image_dims = {pair.layer: config.image.dims[pair.stage] for pair in config.fused_pairs}
        self.embeddings = TextEmbeddings(text)
        layers = []
        for i in range(text.layers):
            layer = TextLayer(
                text,
                image_dims.get(i),
                norm_memory=config.norm_image_memory,
                attention=config.fusion_attention,
                gated=config.fusion_gate,
            )
            layers.append(layer)
        self.layers: ModuleSequence[TextLayer] = ModuleSequence(layers)
        initialise(self, config.init_std)
        if config.init_std is None:
            # Words, not their positions, tell texts apart from the start; otherwise ITC idles for a hundred steps.
            self.embeddings.word.weight.data.mul_(10)
