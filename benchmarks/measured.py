"""What the benchmarks of a whole machine share: rows of figures that are shown as they come, precision, memory."""

import contextlib
import dataclasses
import gc
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.common import timed, write

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Scale:
    """What is measured: the preset, and the sizes of its batches."""

    preset: str
    coarse_batches: tuple[int, ...]
    fine_batches: tuple[int, ...]
    #: (height, width) in pixels.
    image: tuple[int, int]
    images: int
    pairs: int
    captions: int
    repeats: int


FULL = Scale("base", (32, 64), (1, 4), (800, 1088), 64, 128, 16, 5)
SMALL = Scale("tiny", (2,), (1,), (256, 320), 2, 4, 2, 1)


class Report:
    """Rows of figures, shown and written as they come; nothing is begun after the deadline.

    machine: what is written in front of the rows; file: where, if anywhere.
    """

    def __init__(self, minutes: float, machine: dict[str, Any], file: str | None):
        self.deadline = time.monotonic() + 60 * minutes
        self.machine = machine
        self.file = file
        self.rows: list[dict[str, Any]] = []

    def row(self, what: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure and keep, or keep why there is no figure."""
        row: dict[str, Any] = {"what": what}
        if time.monotonic() > self.deadline:
            row["not measured"] = "out of time"
        else:
            try:
                row |= measure()
            except Exception as error:
                traceback.print_exc(limit=-2)
                row["not measured"] = f"{type(error).__name__}: {error}"[:200]
        self.rows.append(row)
        print(in_words(row), flush=True)
        missing = sum("not measured" in row for row in self.rows)
        counts = {"measured": len(self.rows) - missing, "not_measured": missing}
        write({**self.machine, **counts, "rows": self.rows}, self.file)
        free_memory()


def in_words(row: dict[str, Any]) -> str:
    """A row as a line."""
    cells = []
    for name, value in row.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        cells.append(shown if name == "what" else f"{name} {shown}")
    return "  ".join(cells)


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def products(precision: str) -> Iterator[None]:
    """float32 products and convolutions as TF32, or exactly."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def median_seconds(call: Callable[[], Any], device: torch.device, repeats: int, warm: int = 2) -> float:
    for _ in range(warm):
        call()
    seconds = [timed(call, device)[0] for _ in range(repeats)]
    return sorted(seconds)[repeats // 2]


def peak_gib(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / GIB if device.type == "cuda" else float("nan")
