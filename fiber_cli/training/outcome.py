"""What an optimiser step yields, and the end of a run whose steps yield nothing."""

from dataclasses import dataclass

from torch import Tensor

from fiber_cli.distributed import collectives
from fiber_cli.errors import UserError, first_names

#: How many sample ids an error names.
NAMED_SAMPLES = 20


@dataclass
class MicroBatch:
    """The ids of its samples, and whether its loss was finite, bool ()."""

    sample_ids: list[str]
    finite: Tensor


@dataclass
class Outcome:
    """One optimiser step on this rank: the task's outputs, summed over micro-steps; the micro-batches, one for every
    time that they went backward; the gradient norm before clipping, and whether the update was applied."""

    sums: dict[str, Tensor]
    micro_batches: list[MicroBatch]
    grad_norm: float
    applied: bool


class NonFiniteGuard:
    """Ends a run after `limit` steps in a row that were not applied (`runtime.max_nonfinite`)."""

    def __init__(self, limit: int):
        self.limit = limit
        self.steps = 0
        #: Sample ids of these steps, by micro-batch.
        self.suspects: list[list[str]] = []

    def reset(self) -> None:
        """A step was applied."""
        self.suspects = []
        self.steps = 0

    def count(self, outcome: Outcome, step: int, loss_scale: float) -> None:
        """A step was not applied, the `step`th of the run; raises UserError when it is one too many. A collective."""
        guilty, all_ids = _sample_ids(outcome)
        if not guilty and loss_scale > 1:
            return  # fp16 gradients overflowed; the scale has been lowered
        self.suspects += guilty or all_ids
        self.steps += 1
        if self.steps < self.limit:
            return
        names: dict[str, None] = {}
        for ids in self.suspects:
            names.update(dict.fromkeys(ids))
        culprit = "loss" if guilty else "gradient"
        raise UserError(
            f"step {step}: the {culprit} was not finite "
            f"{self.steps} steps in a row (none of them changed the weights); lower optim.lr, set "
            "runtime.clip or runtime.precision=fp32, or look at these samples: "
            f"{first_names(list(names), NAMED_SAMPLES)}"
        )


def _sample_ids(outcome: Outcome) -> tuple[list[list[str]], list[list[str]]]:
    """The ids of the micro-batches of all ranks whose loss was not finite, and of all."""
    local = [(micro_batch.sample_ids, bool(micro_batch.finite)) for micro_batch in outcome.micro_batches]
    guilty = []
    all_ids = []
    for of_rank in collectives.gather_objects(local):
        for ids, finite in of_rank:
            all_ids.append(ids)
            if not finite:
                guilty.append(ids)
    return guilty, all_ids
