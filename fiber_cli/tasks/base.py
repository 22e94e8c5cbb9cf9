"""What every task's module shares, and what training asks of it."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from fiber_cli.model.fusion import FusedEncoder
from fiber_cli.settings import Owner, owned
from fiber_cli.tasks.abilities import Ability
from fiber_cli.tasks.context import TaskContext


class Comparison(NamedTuple):
    """Something that a loss does among all samples of a micro-step, those of the other ranks included.

    name: in summary.json; what: before "512 pairs" in a line for the reader. queue: how many features of earlier steps
    take part; queue_setting: which setting says so, None where there can be none.
    """

    name: str
    what: str
    queue: int = 0
    queue_setting: str | None = None


class Task(nn.Module, ABC):
    """A model with its losses. The constructor takes the model's sizes and the settings that the model owns."""

    encoder: FusedEncoder

    @classmethod
    def from_context(cls, context: TaskContext[Any]) -> Self:
        """The task with fresh weights."""
        return cls(context.model, **owned(context.settings, Owner.MODEL))

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
    def comparisons(self) -> tuple[Comparison, ...]:
        """Which of the losses compare samples with each other."""
        return ()

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
