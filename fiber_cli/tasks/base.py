"""What every task shares: the encoder, and what the engine asks of a task."""

from typing import ClassVar

from torch import Tensor, nn

from fiber_cli.model.fusion import FusedEncoder


class Task(nn.Module):
    """A model with its losses: `forward(batch)` gives {"loss": …, parts for the log}, `predict(batch)` one row per
    item of the batch, on the task's device.

    NEW and DROPPED: prefixes of the parameters that weights of another task, given by `--init-from`, may lack (they
    keep their fresh values) and may have beyond this task's (they are left out).
    """

    NEW: ClassVar[tuple[str, ...]] = ()
    DROPPED: ClassVar[tuple[str, ...]] = ()
    encoder: FusedEncoder

    def step_state(self) -> dict[str, Tensor]:
        """What a training step changes besides the parameters; put back when the step is not applied."""
        return {}

    def resume_state(self) -> dict[str, Tensor]:
        """What exact resuming needs besides the parameters."""
        return self.step_state()

    def load_resume_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `resume_state` and `step_state`."""
