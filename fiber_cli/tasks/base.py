"""What every task's module shares, and what training asks of it."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Set
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from fiber_cli.errors import DeclarationError
from fiber_cli.model.fusion import FusedEncoder
from fiber_cli.settings import Owner, owned
from fiber_cli.tasks.abilities import Ability
from fiber_cli.tasks.context import TaskContext


class Comparison(NamedTuple):
    """Something that a loss does among all samples of a micro-step, those of the other ranks included; is_global: of an
    optimiser step; global_setting: what would make it so, None where nothing does.

    name: in summary.json; what: before "512 pairs" in a line for the reader. queue: how many features of earlier steps
    take part; queue_setting: which setting says so, None where there can be none. least: of how many samples it can be
    computed; off: the setting that leaves it out.
    """

    name: str
    what: str
    queue: int = 0
    queue_setting: str | None = None
    is_global: bool = False
    global_setting: str | None = None
    least: int = 1
    off: str | None = None


class Pass(NamedTuple):
    """A pass of an optimiser step over one micro-batch: forward, and backward where it has a graph.

    micro_step: of which micro-batch, whose chance (dropout, drop path) it has; `stream` gives it chance of its own.
    compute: what the task computes of the batch in place of its losses; of one with a graph "loss" is gone back from.
    """

    micro_step: int
    batch: dict[str, Any]
    compute: Callable[[dict[str, Any]], dict[str, Tensor]] | None = None
    has_graph: bool = True
    stream: int = 0
    is_last: bool = False


class Task(nn.Module, ABC):
    """A model with its losses. The constructor takes the model's sizes and the settings that the model owns."""

    encoder: FusedEncoder

    @classmethod
    def from_context(cls, context: TaskContext[Any]) -> Self:
        """The task with fresh weights. Raises DeclarationError where the constructor's arguments are not the settings
        that the model owns."""
        settings = owned(context.settings, Owner.MODEL)
        for problem in _problems_of_constructor(cls, settings.keys()):
            raise DeclarationError(f"task {context.settings.name!r}: {problem}")
        return cls(context.model, **settings)

    @abstractmethod
    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """ "loss", which carries the graph, and parts for the log."""

    @abstractmethod
    def predict(self, batch: dict[str, Any]) -> Any:
        """One row for every item of the batch, on the task's device."""

    @property
    def switched_off(self) -> frozenset[type[Ability]]:
        """The abilities of the declaration that the settings leave out."""
        return frozenset()

    @property
    def without_place(self) -> tuple[str, ...]:
        """Prefixes of weights that other settings have and these have not: `--init-from` leaves them out, beside those
        that the declaration drops."""
        return ()

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Which of the losses compare samples with each other."""
        return ()

    def passes(self, batches: Iterator[dict[str, Any]], count: int) -> Iterator[Pass]:
        """The passes of an optimiser step, whose micro-batches are the next `count` of `batches`. When the next one is
        asked for, the one before has gone forward and backward."""
        for micro_step in range(count):
            yield Pass(micro_step, next(batches), is_last=micro_step == count - 1)

    def prepare_training(self, context: TaskContext[Any]) -> None:
        """Called once before the first step, for what only training needs."""

    def step_state(self) -> dict[str, Tensor]:
        """What a training step changes besides the parameters; put back when the step is not applied."""
        return {}

    def resume_state(self) -> dict[str, Tensor]:
        """What exact resuming needs besides the parameters."""
        return self.step_state()

    def load_resume_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `resume_state` and `step_state`."""


def _problems_of_constructor(module: type[Task], settings: Set[str]) -> Iterator[str]:
    """What is wrong between a module's constructor, whose first argument is the model's sizes, and the settings."""
    parameters = list(inspect.signature(module).parameters.values())[1:]
    named = {parameter.name for parameter in parameters}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        for setting in sorted(settings - named):
            yield (
                f"the setting {setting!r} is the model's (Owner.MODEL), and {module.__name__} has no argument of that "
                "name: give the constructor one, or the setting its owner"
            )
    for parameter in parameters:
        is_several = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if not is_several and parameter.default is parameter.empty and parameter.name not in settings:
            yield (
                f"{module.__name__} needs the argument {parameter.name!r}, and no setting of the model (Owner.MODEL) "
                "has that name: add one, or pass it in a from_context of the module's own"
            )
