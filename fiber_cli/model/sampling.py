"""Captions drawn from the model's distribution, for CIDEr optimisation."""

import torch
from torch import Tensor

from fiber_cli.model.captioner import Captioner, SpecialIds, Stepper
from fiber_cli.model.decoder_cache import ImageMemory


@torch.no_grad()
def sample(captioner: Captioner, memory: ImageMemory, *, samples: int, max_length: int, special: SpecialIds) -> Tensor:
    """Captions of image memories (B, N, C) drawn token by token, int64 (B*samples, max_length): `cls`, tokens, the
    ending one, padding."""
    stepper = Stepper(captioner, memory, samples, special)
    ended = torch.zeros(len(stepper.tokens), dtype=torch.bool, device=memory.device)
    for _ in range(1, max_length):
        probabilities = stepper.log_probs().exp()
        tokens = _draw(probabilities).masked_fill(ended, special.pad)
        ended = ended | special.ends(tokens)
        stepper.append(tokens)
        if ended.all():
            break
    return stepper.padded(max_length)


def _draw(probabilities: Tensor) -> Tensor:
    """One column of each row (rows, V), int64 (rows,)."""
    # torch.multinomial, but for NaN, at which that ends the process on a GPU instead of giving a NaN loss.
    waiting_times = torch.empty_like(probabilities).exponential_()
    return (probabilities / waiting_times).argmax(1)
