"""Weights are used by the module that has them: under ZeRO 3 it is what they are gathered for, there and back."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from small_tasks import TRAINED, WAYS, made
from torch import nn
from torch.overrides import TorchFunctionMode

from fiber_cli.config.recipe import RuntimeSettings
from fiber_cli.model.precision import precision_context
from fiber_cli.training.computing import prepare


class Borrowed(TorchFunctionMode):
    """Finds parameters that something is computed with outside of the forward of their own module."""

    def __init__(self, task: nn.Module):
        super().__init__()
        self.names = {id(parameter): name for name, parameter in task.named_parameters()}
        self.running: list[nn.Module] = []
        self.found: set[str] = set()

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asks_for_a_type = function.__name__ == "__get__"
        if self.running and not asks_for_a_type:
            for argument in args:
                self._look_at(argument)
        return function(*args, **(kwargs or {}))

    def _look_at(self, argument: Any) -> None:
        name = self.names.get(id(argument))
        if name is None or any(argument is own for own in own_parameters(self.running[-1])):
            return
        # Gates of merged attention are what their module gives, which ZeRO allows for.
        if not name.endswith(".cross.alpha"):
            self.found.add(name)


def own_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Those in its lists as well, which have no forward."""
    yield from module.parameters(recurse=False)
    for child in module.children():
        if isinstance(child, nn.ParameterList):
            yield from child


@contextlib.contextmanager
def watched(task: nn.Module) -> Iterator[Borrowed]:
    borrowed = Borrowed(task)

    def begin(module: nn.Module, _: Any) -> None:
        borrowed.running.append(module)

    def end(*_: Any) -> None:
        borrowed.running.pop()

    for module in task.modules():
        module.register_forward_pre_hook(begin)
        module.register_forward_hook(end)
    with borrowed:
        yield borrowed


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(("way", "precision"), [("plain", "fp32"), ("low", "bf16")])
def test_a_weight_is_used_outside_of_its_module(name, way, precision):
    make, batch = TRAINED[name]
    task = made(make).train()
    prepare(task, RuntimeSettings(micro_batch=1, global_batch=1, **WAYS[way]), compiled=False, any_size=False)
    with precision_context(precision, torch.device("cpu")), watched(task) as borrowed:
        task(batch())
    assert not borrowed.found


def test_one_that_is_used_elsewhere_is_not_found():
    class Borrowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) @ self.inner.weight

    task = Borrowing()
    with watched(task) as borrowed:
        task(torch.ones(1, 2))
    assert borrowed.found == {"inner.weight"}
