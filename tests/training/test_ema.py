"""The moving average of the weights."""

import torch

from fiber_cli.training.ema import Ema


def test_the_moving_average_is_the_recursion():
    task = torch.nn.Linear(2, 1)
    ema = Ema(task, 0.5)
    expected = task.weight.detach().clone()
    for number in range(6):
        with torch.no_grad():
            task.weight += 1.0
        ema.update(task, number)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * task.weight.detach()
    torch.testing.assert_close(ema.task.weight, expected)


def test_the_average_neither_trains_nor_drops_out_and_leaves_the_task_as_it_is():
    task = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Dropout(0.5)).train()
    before = task[0].weight.detach().clone()
    ema = Ema(task, 0.9)
    ema.update(task, 0)
    assert not ema.task.training
    assert not any(parameter.requires_grad for parameter in ema.task.parameters())
    assert task.training
    assert task[0].weight.requires_grad
    torch.testing.assert_close(task[0].weight.detach(), before, atol=0, rtol=0)
