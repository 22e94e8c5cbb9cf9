"""Deep fusion in the detection head, as in GLIP: before each block of the head all places of the pyramid and all
tokens look at each other, and the text goes through one more layer.

It is the third row of the paper's Table 2, beside no fusion and fusion in the backbone.
Shapes: B images, N places of all levels (finest first, row-major), L text length, C channels, T text width, h heads, d
channels a head.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.attention_bias import key_bias
from fiber_cli.model.config import TextConfig
from fiber_cli.model.init import zero_bias
from fiber_cli.model.linear import Linear
from fiber_cli.model.norm import LayerNorm
from fiber_cli.model.text import TextLayer, merge_heads, split_heads

HEADS = 8
#: Width of the attention for each channel of the pyramid: 2,048 at 256, as published.
WIDTH_PER_CHANNEL = 8
#: Where the scales of what is added start, as published: one over the number of the blocks.
SCALE = 1 / 6


class BothWaysAttention(nn.Module):
    """Places and tokens look at each other by one product of queries and keys, of which each direction takes its own
    softmax."""

    def __init__(self, channels: int, text_dim: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        width = WIDTH_PER_CHANNEL * channels
        self.image_norm = LayerNorm(channels)
        self.text_norm = LayerNorm(text_dim)
        self.query = Linear(channels, width)
        self.key = Linear(text_dim, width)
        self.image_value = Linear(channels, width)
        self.text_value = Linear(text_dim, width)
        self.image_out = Linear(width, channels)
        self.text_out = Linear(width, text_dim)
        self.image_scale = nn.Parameter(torch.full((channels,), SCALE))
        self.text_scale = nn.Parameter(torch.full((text_dim,), SCALE))
        for layer in (self.query, self.key, self.image_value, self.text_value, self.image_out, self.text_out):
            nn.init.xavier_uniform_(layer.weight)
            zero_bias(layer)

    def forward(self, image_BNC: Tensor, text_BLT: Tensor, mask_B11L: Tensor) -> tuple[Tensor, Tensor]:
        """The same shapes, each normalised and with what it sees of the other. mask: bool, True for real tokens, or
        what is added to the logits."""
        image, text = self.image_norm(image_BNC), self.text_norm(text_BLT)
        place_BhNd = split_heads(self.query(image), HEADS)
        token_BhLd = split_heads(self.key(text), HEADS)
        dropout = self.dropout if self.training else 0.0
        of_text_BhNd = F.scaled_dot_product_attention(
            place_BhNd,
            token_BhLd,
            split_heads(self.text_value(text), HEADS),
            attn_mask=mask_B11L,
            dropout_p=dropout,
        )
        # The product is symmetric: what asks and what is asked change places.
        of_image_BhLd = F.scaled_dot_product_attention(
            token_BhLd, place_BhNd, split_heads(self.image_value(image), HEADS), dropout_p=dropout
        )
        image = image + self.image_scale * self.image_out(merge_heads(of_text_BhNd))
        text = text + self.text_scale * self.text_out(merge_heads(of_image_BhLd))
        return image, text


class DeepFusion(nn.Module):
    """What stands before one block of the head."""

    def __init__(self, channels: int, text: TextConfig):
        super().__init__()
        self.both_ways = BothWaysAttention(channels, text.hidden, text.dropout)
        self.text_layer = TextLayer(text, image_dim=None)

    def forward(self, levels: Sequence[Tensor], text_BLT: Tensor, mask_BL: Tensor) -> tuple[list[Tensor], Tensor]:
        """levels: (B, C, H_l, W_l) each -> the same shapes."""
        rows = [level.flatten(2).transpose(1, 2) for level in levels]
        bias = key_bias(mask_BL[:, None, None, :], like=text_BLT)
        image_BNC, text = self.both_ways(torch.cat(rows, 1), text_BLT, bias)
        fused = []
        for level, of_level_BnC in zip(levels, image_BNC.split([row.shape[1] for row in rows], 1), strict=True):
            fused.append(of_level_BnC.transpose(1, 2).reshape(level.shape))
        return fused, self.text_layer(text, bias)
