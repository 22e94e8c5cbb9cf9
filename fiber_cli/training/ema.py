"""The moving average of the weights."""

import copy

import torch
from torch import Tensor, nn


class Ema:
    """An exponential moving average of a task's weights, in a copy of the task.

    The decay of update number n (from 0) is min(decay, (1 + n) / (10 + n)), so that the first weights are
    soon forgotten.
    """

    def __init__(self, task: nn.Module, decay: float):
        self.task = copy.deepcopy(task).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, task: nn.Module, number: int) -> None:
        """Move towards the task's weights after update `number`."""
        decay = min(self.decay, (1 + number) / (10 + number))
        averages: list[Tensor] = list(self.task.parameters())
        weights = [parameter.detach() for parameter in task.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - decay)
