"""Where a model computes and how precisely, as it is asked for; `checkpoints.placing` makes it so."""

from dataclasses import dataclass
from typing import Literal

#: Names the device where none is asked for.
DEVICE_VARIABLE = "FIBER_DEVICE"
#: "auto": bf16 on GPUs that have it, else fp32. "int8": products of linear layers on CPUs.
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
#: The same of trainings, whose products have gradients.
TrainingPrecision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Placement:
    """device: such as "cpu", "cuda:1" or "mps"; None: a GPU where there is one. tf32: whether GPUs round the factors of
    float32 products to TensorFloat-32; None: as PyTorch does by itself, in convolutions alone."""

    device: str | None = None
    precision: Precision = "auto"
    tf32: bool | None = None


#: What is done where nothing is asked for.
USUAL = Placement()
