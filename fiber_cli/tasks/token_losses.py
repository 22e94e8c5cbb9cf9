"""The likelihood of texts under a captioner, token by token.

Shapes: rows of texts, L text length.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fiber_cli.distributed.collectives import all_reduce_sum, world_size
from fiber_cli.model.captioner import Captioner
from fiber_cli.model.decoder_cache import ImageMemory

#: The label of positions that no token follows.
NO_LABEL = -100


class TokenLosses(NamedTuple):
    """Of every next token of texts (rows, L): its cross-entropy, float32, 0 where there is no next token; and where
    there is one, bool."""

    entropies: Tensor
    real: Tensor

    def mean(self) -> Tensor:
        """Over the tokens of the global batch, such that the mean over ranks of its gradients is that of the whole."""
        count = all_reduce_sum(self.real.sum().float()).clamp(min=1)
        return self.entropies.sum() * world_size() / count


def token_losses(captioner: Captioner, memory: ImageMemory, ids: Tensor, mask: Tensor, labels: Tensor) -> TokenLosses:
    """Of texts, ids int64 and mask bool (rows, L); those of one image of `memory` are contiguous.
    labels: the next token of every position, int64 (rows, L), NO_LABEL where none is learned. The vocabulary is scored
    only where there is a label."""
    real = labels != NO_LABEL
    states = captioner.states(memory, ids, mask=mask)
    logits = captioner.mlm(states[real]).float()
    entropies = F.cross_entropy(logits, labels[real], reduction="none")
    zeros = torch.zeros(ids.shape, device=ids.device)
    return TokenLosses(zeros.masked_scatter(real, entropies), real)
