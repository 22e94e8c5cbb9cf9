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


def labelled_positions(labels: Tensor) -> Tensor:
    """Where there is a label, int64 (P,), numbers in the flattened labels (rows, L). How many there are is known
    without waiting where the labels are on the host."""
    return (labels != NO_LABEL).flatten().nonzero().squeeze(1)


def next_tokens(ids: Tensor, pad_id: int) -> Tensor:
    """The labels of texts that are learned whole: the next token of every position, int64 (rows, L), NO_LABEL where
    there is none."""
    following = F.pad(ids[:, 1:], (0, 1), value=pad_id)
    return following.masked_fill(following == pad_id, NO_LABEL)


def token_losses(
    captioner: Captioner,
    memory: ImageMemory,
    ids: Tensor,
    mask: Tensor,
    labels: Tensor,
    positions: Tensor | None = None,
) -> TokenLosses:
    """Of texts, ids int64 and mask bool (rows, L); those of one image of `memory` are contiguous.
    labels: the next token of every position, int64 (rows, L), NO_LABEL where none is learned. The vocabulary is scored
    only where there is a label. positions: see `labelled_positions`, None: found here, for which the host waits for the
    device."""
    if positions is None:
        positions = labelled_positions(labels)
    states = captioner.states(memory, ids, mask=mask)
    logits = captioner.mlm(states.flatten(0, 1).index_select(0, positions)).float()
    entropies = F.cross_entropy(logits, labels.flatten().index_select(0, positions), reduction="none")
    zeros = torch.zeros(labels.numel(), device=ids.device)
    return TokenLosses(zeros.index_copy(0, positions, entropies).view(labels.shape), labels != NO_LABEL)
