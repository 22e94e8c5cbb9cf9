"""One attention over the tokens of both modalities, with a gate, and the gates of fusion.

Shapes: R rows, h heads, Q queries, S tokens of the queries' own modality, T of the other, d channels a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.model.decoder_cache import KeyValues


def gate(gated: bool) -> nn.Parameter | None:
    """A gate that is shut (`FiberConfig.gate_init` says where it starts), or none."""
    return nn.Parameter(torch.zeros(1)) if gated else None


def merged_attention(
    q_RhQd: Tensor,
    own: KeyValues,
    own_mask: Tensor,
    other: KeyValues,
    other_mask: Tensor | None,
    alpha: Tensor | None,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Softmax over the keys of both modalities together: (R, h, Q, d).

    own: keys and values (R, h, S, d) of the queries' modality; other: (R, h, T, d) of the other. The masks are bool,
    True where a key may be seen, or are added to the logits, and broadcast to (R, h, Q, S) and (R, h, Q, T); None hides
    nothing. alpha: (1,), how far the result goes from attention to the own modality alone, 0, to the merged one, 1;
    None is 1.
    """
    rows, heads, queries, _ = q_RhQd.shape
    keys_RhSTd = torch.cat([own.keys, other.keys], 2)
    values_RhSTd = torch.cat([own.values, other.values], 2)
    own_bias = _bias(own_mask, q_RhQd)
    own_bias_RhQS = own_bias.expand(rows, heads, queries, -1)
    other_bias_RhQT = q_RhQd.new_zeros(rows, heads, queries, other.keys.shape[2])
    if other_mask is not None:
        other_bias_RhQT = _bias(other_mask, q_RhQd).expand_as(other_bias_RhQT)
    bias_RhQST = torch.cat([own_bias_RhQS, other_bias_RhQT], 3)
    merged = F.scaled_dot_product_attention(q_RhQd, keys_RhSTd, values_RhSTd, attn_mask=bias_RhQST, dropout_p=dropout)
    if alpha is None:
        return merged
    alone = F.scaled_dot_product_attention(q_RhQd, own.keys, own.values, attn_mask=own_bias, dropout_p=dropout)
    return alone + alpha * (merged - alone)


def _bias(mask: Tensor, like: Tensor) -> Tensor:
    """What is added to logits: minus infinity where a bool mask hides; other masks as they are."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    zeros = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill(~mask, -torch.inf)
