"""How many operations a training step gives to a GPU, one by one, and which of them; without a GPU.

    python -m benchmarks.launches                    # base: 2 pairs of the coarse stage, 1 and 2 images of the fine one
    python -m benchmarks.launches --preset tiny --top 20

A step is forward and backward in bfloat16, the second of its kind, as what is kept is made in the first. Tensors have
shapes and no values (`benchmarks.fake_gpu`), so that a step of a large model takes seconds and no memory. Views are not
counted; what is counted launches one kernel or several. Copies between host and device, and what the host would wait
for the device for, are counted beside them.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.coarse_step import collated, random_batch
from benchmarks.common import options, write
from benchmarks.detect import fine_config
from benchmarks.fake_gpu import fake_gpu, placed
from benchmarks.measured import FULL
from benchmarks.steps import OF_DETECTORS, WAYS, fine_batch
from fiber_cli.config.recipe import RuntimeSettings
from fiber_cli.distributed.device import to_device
from fiber_cli.model.config import PRESETS
from fiber_cli.model.precision import precision_context
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.regions.task import RegionTask
from fiber_cli.training.computing import prepare

aten = torch.ops.aten
#: What neither is a view by its schema nor computes anything.
NO_LAUNCH = {
    aten._unsafe_view,
    aten._reshape_alias,
    aten.detach,
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.lift_fresh,
    aten.new_empty,
    aten.new_empty_strided,
    torch.ops.prim.device,
}
#: Bytes that the driver takes from any memory without waiting.
SMALL = 64 * 1024
#: Of `benchmarks.steps`, those that are counted.
WAYS_COUNTED = ("plain", "recomputing", "norms in bf16", "deformable in bf16")
COPIES = {aten._to_copy: None, aten.copy_: 2}
READS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.bincount}


class WaitError(AssertionError):
    """The host waits until the device has done all that it was given."""


class Launches(TorchDispatchMode):
    """What is given to the fake GPU. counts: operation → how often; copies: those between host and device, with their
    bytes. waits: what the host would wait for; an error at once where they are `refused`."""

    def __init__(self, *, refused: bool = False):
        super().__init__()
        self.refused = refused
        self.counts: Counter[str] = Counter()
        self.copies: list[tuple[str, int]] = []
        self.waits: list[str] = []

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        tensors = _tensors((args, kwargs))
        given = {tensor.device.type for tensor in tensors}
        if "cuda" in given and packet in READS:
            self._wait(f"{func} of what is on the device")
        result = func(*args, **kwargs)
        made = {tensor.device.type for tensor in _tensors(result)}
        if packet in COPIES and len(given | made) > 1:
            self._copy(func, args, kwargs, result)
        elif "cuda" in given and any(tensor.device.type == "cpu" and tensor.ndim for tensor in tensors):
            self._wait(f"{func} of what is on the device and on the host")
        if "cuda" in given | made and not _launches_nothing(func):
            self.counts[str(func)] += 1
        return result

    def _copy(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> None:
        number = COPIES[func.overloadpacket]
        no_waiting = kwargs.get("non_blocking", False)
        if number is not None and len(args) > number:
            no_waiting = args[number]
        size = result.numel() * result.element_size()
        self.copies.append((f"to {result.device.type}", size))
        if not no_waiting or result.device.type == "cpu" or size > SMALL:
            self._wait(f"{func} of {size} bytes to {result.device}, non_blocking={no_waiting}")

    def _wait(self, what: str) -> None:
        if self.refused:
            raise WaitError(what)
        self.waits.append(what)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _launches_nothing(func: Any) -> bool:
    if func.overloadpacket in NO_LAUNCH:
        return True
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


class StepCount(NamedTuple):
    """Of a step what was given to the device forward and backward, and to the host for waiting."""

    forward: Launches
    backward: Launches

    @property
    def total(self) -> int:
        return self.forward.total + self.backward.total

    @property
    def counts(self) -> Counter[str]:
        return self.forward.counts + self.backward.counts

    @property
    def copies(self) -> list[tuple[str, int]]:
        return self.forward.copies + self.backward.copies

    @property
    def waits(self) -> list[str]:
        return self.forward.waits + self.backward.waits


def count_step(
    make: Callable[[], Task],
    batch: dict[str, Any],
    settings: dict[str, Any] | None = None,
    *,
    precision: str = "bf16",
    refused: bool = False,
) -> StepCount:
    """A task's training step on a batch. settings: of the recipe's section `runtime`; refused: see `Launches`."""
    with fake_gpu() as device:
        task = placed(make).train()
        sizes = {"micro_batch": 1, "global_batch": 1}
        prepare(task, RuntimeSettings(**{**sizes, **(settings or {})}), compiled=False, any_size=False)
        moved = to_device(batch, device)
        for is_first in (True, False):
            count = StepCount(Launches(refused=refused and not is_first), Launches(refused=refused and not is_first))
            with count.forward, precision_context(precision, device):
                loss = task(moved)["loss"]
            with count.backward:
                loss.backward()
            for parameter in task.parameters():
                parameter.grad = None
    return count


def steps(preset: str) -> dict[str, tuple[Callable[[], Task], dict[str, Any]]]:
    """The steps that are counted: the task, and its batch."""
    coarse = PRESETS[preset]
    fine = fine_config(preset, coarse.text.vocab, drop_path=0.4)
    size = FULL.image
    of_images = {}
    for images in (1, 2):
        of_images[f"fine, {images} x {size[0]} x {size[1]}"] = (
            partial(RegionTask, fine),
            fine_batch(fine, size, images),
        )
    return {"coarse, 2 pairs": (partial(CoarseTask, coarse), collated(random_batch(coarse, 2))), **of_images}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--top", type=int, default=0, help="so many kinds of operations of each step")
    args = parser.parse_args()
    report: dict[str, Any] = {"preset": args.preset, "torch": torch.__version__, "steps": {}}
    for name, (make, batch) in steps(args.preset).items():
        for way in WAYS_COUNTED:
            if way in OF_DETECTORS and not name.startswith("fine"):
                continue
            count = count_step(make, batch, WAYS[way])
            report["steps"][f"{name}, {way}"] = {
                "forward": count.forward.total,
                "backward": count.backward.total,
                "total": count.total,
                "copies": count.copies,
                "waits": count.waits,
                "operations": dict(count.counts.most_common()),
            }
            print(
                f"{name}, {way}: {count.forward.total:,} forward and {count.backward.total:,} backward, "
                f"{count.total:,}; {len(count.copies)} copies, {len(count.waits)} waits",
                flush=True,
            )
            for operation, times in count.counts.most_common(args.top):
                print(f"    {times:6,} {operation}")
    write(report, args.json)


if __name__ == "__main__":
    main()
