"""A checkpoint where it is to compute, in the precision that is asked for."""

from typing import Any, NamedTuple

import torch

from fiber_cli.checkpoints.loading import Loaded
from fiber_cli.distributed.device import device_named, in_words, prediction_device
from fiber_cli.model.precision import allow_tf32, prepared, settled
from fiber_cli.placement import USUAL, Placement


class Placed(NamedTuple):
    """loaded: its task on `device`, with weights for `precision`, a settled one, in whose `precision_context` it is to
    compute. tf32: as asked for."""

    loaded: Loaded
    device: torch.device
    precision: str
    tf32: bool | None

    def facts(self) -> dict[str, Any]:
        """What results say of how they were computed."""
        facts: dict[str, Any] = {"precision": self.precision, **in_words(self.device)}
        return facts if self.tf32 is None else facts | {"tf32": self.tf32}


def placed(loaded: Loaded, placement: Placement = USUAL) -> Placed:
    """The checkpoint for predictions; in fp32 with the task itself, which is moved. UserError for a device or a
    precision that this machine has not."""
    device = prediction_device() if placement.device is None else device_named(placement.device)
    precision = settled(placement.precision, device)
    allow_tf32(placement.tf32)
    task = prepared(loaded.task, precision, device)
    return Placed(loaded._replace(task=task), device, precision, placement.tf32)
