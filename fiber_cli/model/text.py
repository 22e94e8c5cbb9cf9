"""RoBERTa text encoder whose later layers can also attend to image tokens.

Shapes: B batch, L text length, C width, N image tokens, h heads, d channels a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.config import FiberConfig, TextConfig
from fiber_cli.model.init import initialise


def position_ids(ids_BL: Tensor, pad_id: int, past_B1: Tensor | int = 0) -> Tensor:
    """RoBERTa positions: pad_id + 1 for the first real token, counting real tokens only; pad_id for padding.

    `past_B1` is the number of real tokens that precede these ids (incremental decoding).
    """
    real = (ids_BL != pad_id).long()
    return (real.cumsum(1) + past_B1) * real + pad_id


def split_heads(x_BLC: Tensor, heads: int) -> Tensor:
    """(B, L, C) -> (B, h, L, d)."""
    return x_BLC.unflatten(2, (heads, -1)).transpose(1, 2)


class TextEmbeddings(nn.Module):
    """Word + position + token type, normalised."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.pad_id = config.pad_id
        self.word = nn.Embedding(config.vocab, config.hidden, padding_idx=config.pad_id)
        self.position = nn.Embedding(config.positions, config.hidden, padding_idx=config.pad_id)
        self.token_type = nn.Embedding(1, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids_BL: Tensor, past_B1: Tensor | int = 0) -> Tensor:
        """int64 (B, L) -> (B, L, C)."""
        positions = position_ids(ids_BL, self.pad_id, past_B1)
        token_type = self.token_type(torch.zeros_like(ids_BL))
        return self.dropout(self.norm(self.word(ids_BL) + token_type + self.position(positions)))


class TextCrossAttention(nn.Module):
    """Gated attention of text tokens to all image tokens (no mask on the image)."""

    def __init__(self, config: TextConfig, image_dim: int):
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.query = nn.Linear(config.hidden, config.hidden)
        self.key = nn.Linear(image_dim, config.hidden)
        self.value = nn.Linear(image_dim, config.hidden)
        self.proj = nn.Linear(config.hidden, config.hidden)
        self.alpha = nn.Parameter(torch.zeros(1))

    def memory(self, image_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the image tokens, (B, h, N, d) each: computed once for a caption's many steps."""
        return split_heads(self.key(image_BNC), self.heads), split_heads(self.value(image_BNC), self.heads)

    def forward(self, a_BLC: Tensor, image_BNC: Tensor | None, memory: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Adds the gated term to the self-attention output `a` (after its projection, before the residual).

        With `memory` of M images and `a` of M*K rows, rows of one image being contiguous (beams), the K rows share
        the image's keys and values by standing in the query's length, so nothing is repeated.
        """
        k, v = self.memory(image_BNC) if memory is None else memory
        rows, L, C = a_BLC.shape
        q = split_heads(self.query(a_BLC).view(k.shape[0], -1, C), self.heads)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        out = self.proj(out.transpose(1, 2).reshape(rows, L, C))
        return a_BLC + self.alpha * F.dropout(out, self.dropout, self.training)


class TextLayer(nn.Module):
    """Post-norm transformer layer; the gated image term joins the self-attention output before the residual."""

    def __init__(self, config: TextConfig, image_dim: int | None):
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.query = nn.Linear(config.hidden, config.hidden)
        self.key = nn.Linear(config.hidden, config.hidden)
        self.value = nn.Linear(config.hidden, config.hidden)
        self.attn_out = nn.Linear(config.hidden, config.hidden)
        self.attn_norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.cross = TextCrossAttention(config, image_dim) if image_dim else None
        self.fc1 = nn.Linear(config.hidden, config.intermediate)
        self.fc2 = nn.Linear(config.intermediate, config.hidden)
        self.out_norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)

    def forward(
        self,
        x_BLC: Tensor,
        mask: Tensor,
        image_BNC: Tensor | None = None,
        *,
        last_norm: bool = True,
        memory: tuple[Tensor, Tensor] | None = None,
        past: list[Tensor] | None = None,
        first: int | None = None,
    ) -> Tensor:
        """(B, L, C) -> (B, L, C). `mask` is bool, broadcastable to (B, h, L, keys), True where a key may be seen.

        `last_norm=False` leaves out the output LayerNorm (the coarse stage's last fused layer, as published).
        `past`: keys and values (B, h, past, d) of earlier decoding steps, empty before the first; x joins them, there
        too. `first`: compute the first so many tokens only, (B, first, C).
        """
        x, h = x_BLC[:, :first], self.heads
        q, k, v = (split_heads(t, h) for t in (self.query(x), self.key(x_BLC), self.value(x_BLC)))
        if past:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        if past is not None:
            past[:] = k, v
        dropout = self.dropout if self.training else 0.0
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        a = F.dropout(self.attn_out(a.transpose(1, 2).reshape(x.shape)), self.dropout, self.training)
        if image_BNC is not None or memory is not None:
            a = self.cross(a, image_BNC, memory)
        x = self.attn_norm(a + x)
        out = F.dropout(self.fc2(F.gelu(self.fc1(x))), self.dropout, self.training) + x
        return self.out_norm(out) if last_norm else out


class Roberta(nn.Module):
    """The text tower's parts. The encoder in `fusion.py` decides which run alone and which run fused."""

    def __init__(self, config: FiberConfig):
        super().__init__()
        text = config.text
        image_dim = {layer: config.image.dims[stage] for stage, _, layer in config.fused_pairs}
        self.embeddings = TextEmbeddings(text)
        self.layers = nn.ModuleList(TextLayer(text, image_dim.get(i)) for i in range(text.layers))
        initialise(self, config.init_std)
        if config.init_std is None:
            # Words, not their places, tell texts apart from the start; otherwise ITC idles for a hundred steps.
            self.embeddings.word.weight.data.mul_(10)
