"""Fusion on top, as METER stacks it: layers of each modality's own that stand on both towers and look at each other.

The paper compares fusion in the backbone with it (section 4, "METER"): of its own parameters it has four times as many,
and every layer runs for each pair of an image and a text.
Shapes: B rows, Q tokens, S tokens that are looked at, M images, h heads, d channels a head, D joint width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.attention_bias import narrowed
from fiber_cli.model.config import FiberConfig
from fiber_cli.model.decoder_cache import KeyValues, LayerCache
from fiber_cli.model.init import initialise
from fiber_cli.model.linear import Linear
from fiber_cli.model.module_sequence import ModuleSequence
from fiber_cli.model.norm import LayerNorm
from fiber_cli.model.text import merge_heads, split_heads


class TopAttention(nn.Module):
    """Attention of tokens to tokens of their own or of the other modality."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = Linear(width, width)
        self.key = Linear(width, width)
        self.value = Linear(width, width)
        self.out = Linear(width, width)

    def project(self, seen_BSD: Tensor) -> KeyValues:
        """Keys and values of tokens that are looked at, (B, h, S, d) each."""
        seen = narrowed(seen_BSD)
        return KeyValues(split_heads(self.key(seen), self.heads), split_heads(self.value(seen), self.heads))

    def forward(
        self, x_BQD: Tensor, seen: Tensor | KeyValues, mask: Tensor | None, cache: LayerCache | None = None
    ) -> Tensor:
        """(B, Q, D) -> (B, Q, D). seen: tokens (B, S, D), or what `project` has made of them; those of the `cache`
        stand before them. mask: bool, broadcastable to (B, h, Q, S), True where a token may be seen, or what is added
        to the logits; None: everywhere.

        Without a mask B may be K texts for each of M images, those of one image being contiguous: they share what is
        seen, (M, S, D), by standing in the query's length.
        """
        seen_kv = seen if isinstance(seen, KeyValues) else self.project(seen)
        if cache is not None:
            seen_kv = cache.extend(seen_kv)
        query = self.query(x_BQD)
        if mask is None:
            query = query.view(len(seen_kv.keys), -1, query.shape[2])
        q_BhQd = split_heads(query, self.heads)
        dropout = self.dropout if self.training else 0.0
        out_BhQd = F.scaled_dot_product_attention(q_BhQd, *seen_kv, attn_mask=mask, dropout_p=dropout)
        out_BQD = self.out(merge_heads(out_BhQd).reshape(x_BQD.shape))
        return F.dropout(out_BQD, self.dropout, self.training)


class TopLayer(nn.Module):
    """Self-attention, attention to the other modality, feed-forward; each with a residual and LayerNorm after it."""

    def __init__(self, width: int, heads: int, intermediate: int, dropout: float, norm_eps: float):
        super().__init__()
        self.dropout = dropout
        self.attn = TopAttention(width, heads, dropout)
        self.attn_norm = LayerNorm(width, eps=norm_eps)
        self.cross = TopAttention(width, heads, dropout)
        self.cross_norm = LayerNorm(width, eps=norm_eps)
        self.fc1 = Linear(width, intermediate)
        self.fc2 = Linear(intermediate, width)
        self.out_norm = LayerNorm(width, eps=norm_eps)

    def forward(
        self,
        x_BQD: Tensor,
        mask: Tensor | None,
        other: Tensor | KeyValues,
        other_mask: Tensor | None,
        *,
        cache: LayerCache | None = None,
        first: int | None = None,
    ) -> Tensor:
        """(B, Q, D) -> (B, Q, D). Masks, `other` and `cache`: see `TopAttention.forward`. `first`: compute the first so
        many tokens alone, (B, first, D), which see all of x."""
        x = x_BQD[:, :first]
        x = self.attn_norm(x + self.attn(x, x_BQD, mask, cache))
        x = self.cross_norm(x + self.cross(x, other, other_mask))
        mlp = self.fc2(F.gelu(self.fc1(x)))
        return self.out_norm(x + F.dropout(mlp, self.dropout, self.training))


class TopFusion(nn.Module):
    """The parts of fusion on top. The encoder in `fusion.py` decides how they run."""

    def __init__(self, config: FiberConfig):
        super().__init__()
        width, text = config.hidden, config.text
        self.image_in = Linear(config.image.dims[-1], width)
        self.text_in = Linear(text.hidden, width)
        self.image_layers: ModuleSequence[TopLayer] = ModuleSequence()
        self.text_layers: ModuleSequence[TopLayer] = ModuleSequence()
        for layers in (self.image_layers, self.text_layers):
            for _ in range(config.top_layers):
                layers.append(TopLayer(width, text.heads, 4 * width, text.dropout, text.norm_eps))
        initialise(self, config.init_std)
