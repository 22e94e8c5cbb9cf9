"""GPUs by name: the rate that their makers state, their memory, and the share of the rate that trainings reach."""

from typing import NamedTuple


class Shares(NamedTuple):
    """Of a GPU's rate, what trainings on pairs of image and text reach, and those with boxes."""

    pairs: float
    boxes: float


class Gpu(NamedTuple):
    """rate: tera-operations a second of dense matrix products in bfloat16, in float16 where it has no bfloat16; gib: of
    memory; measured: what was measured on it, in bfloat16, by `benchmarks.gpu`."""

    title: str
    rate: float
    gib: int
    measured: Shares | None = None


GPUS = {
    "h200": Gpu("H200", 989.0, 141, Shares(pairs=0.11, boxes=0.016)),
    "h100": Gpu("H100", 989.0, 80),
    "a100": Gpu("A100", 312.0, 80),
    "a100-40": Gpu("A100 of 40 GB", 312.0, 40),
    "v100": Gpu("V100", 125.0, 32),
    "l40s": Gpu("L40S", 362.0, 48),
    "a6000": Gpu("RTX A6000", 155.0, 48),
    "5090": Gpu("RTX 5090", 209.0, 32),
    "4090": Gpu("RTX 4090", 165.0, 24),
    "3090": Gpu("RTX 3090", 71.0, 24),
    "l4": Gpu("L4", 121.0, 24),
    "a10": Gpu("A10", 125.0, 24),
    "t4": Gpu("T4", 65.0, 16),
}
#: The share of its rate that a training with large batches is taken to reach.
SHARE = 0.4
#: The same of trainings with boxes, whose batches are small and whose pictures differ in size: 0.69 s a picture on a
#: V100 (the paper's Table 2: 540 V100-hours for 24 epochs of COCO), at the 2.4 tera-operations of `coco_scratch`.
BOXES_SHARE = 0.03
#: GiB of a GPU that CUDA and its libraries keep to themselves, about.
OVERHEAD = 1.0
