"""Worker processes that read batches, and the count of what they could not read."""

import atexit
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from types import FrameType
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset

from fiber_cli.data.mixing import StepSampler, TrainSet, list_bad
from fiber_cli.data.readers import Batch, Reader, Sample
from fiber_cli.data.workers import worker_context
from fiber_cli.errors import UserError
from fiber_cli.stop_signals import die_with_parent, release

if sys.platform != "win32":
    from fiber_cli.data.parcel import Parcel, SentCollate, SentDataset

#: Workers that read data, of a rank: so many a core, and so many on any machine.
WORKERS_PER_CORE, _FEW_WORKERS = 8, 16
#: The rate of bad samples is taken of at least so many, so that a single one at the start does not end a run.
_MIN_SEEN = 1000


def make_loader(
    dataset: "Dataset[Any] | Sequence[Any]",
    workers: int,
    *,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **options: Any,
) -> "DataLoader[Any]":
    """A loader with our workers: one thread each, deaf to the signals that ask the run to stop and save. UserError for
    more of them than a machine can carry, and, where they are started, for what cannot be sent to them."""
    most = max(_FEW_WORKERS, WORKERS_PER_CORE * (os.cpu_count() or 1))
    if workers > most:
        raise UserError(
            f"{workers} workers are more than this machine carries, each with the memory of a process: give at most "
            f"{most} as data.workers or --workers"
        )
    context = worker_context() if workers else None
    if sys.platform != "win32" and context is not None and context.get_start_method() != "fork":
        parcel = Parcel((dataset, collate_fn))
        dataset = SentDataset(parcel)
        collate_fn = collate_fn and SentCollate(parcel)
    return DataLoader(
        cast("Dataset[Any]", dataset),  # a sequence will do
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context=context,
        collate_fn=collate_fn,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # otherwise starting workers draws from the run's own generator
        **options,
    )


def _start_worker(worker: int) -> None:
    die_with_parent()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Schedulers signal every process of a job, while the main process still needs its batches to finish the
    # step. Only a second SIGTERM ends a worker; the loader's own clean-up and ours at exit repeat it.
    for number in signal.Signals:
        if number.name in ("SIGINT", "SIGUSR1", "SIGHUP"):  # Windows lacks some
            signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_at_the_next)
    release()


def _end_at_the_next(number: int, frame: FrameType | None) -> None:
    signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)


def _end_workers() -> None:
    """End workers whose loader an error report still holds: the interpreter would wait for them, and tell them once."""
    for worker in multiprocessing.active_children():
        while worker.daemon and worker.is_alive():
            worker.terminate()
            worker.join(0.1)


atexit.register(_end_workers)


def train_loader(
    sampler: StepSampler, reader: Reader, workers: int, collate_fn: Callable[[list[Sample]], Batch]
) -> Generator[Batch, None, None]:
    """The sampler's micro-batches as `collate_fn` makes them, in order; what a worker has to tell the user comes
    without the worker's traceback."""
    samples = TrainSet(sampler.mixture, reader)
    try:
        yield from make_loader(samples, workers, batch_sampler=sampler, collate_fn=collate_fn)
    except UserError as error:
        # A worker's comes as its traceback, whose last lines are the message and its details.
        whole = error.args[0].rsplit("UserError: ", 1)[-1].strip()
        message, *details = whole.split("\n  ")
        raise UserError(message, *details, *error.details) from None


class BadCounter:
    """Counts used and replaced samples; ends the run when more than `max_rate` of them were bad.

    The rate is taken of at least 1,000 samples, so that a single bad one at the start does not end a run.
    """

    def __init__(self, max_rate: float):
        self.max_rate = max_rate
        self.seen = 0
        self.bad = 0
        self.recent: deque[tuple[str, str]] = deque(maxlen=5)

    def update(self, batch: Batch) -> None:
        """Count a batch; raises `UserError` past the rate, naming the last bad samples."""
        self.seen += len(batch["sample_ids"])
        self.bad += len(batch["bad"])
        self.recent.extend(batch["bad"])
        if self.bad > self.max_rate * max(self.seen, _MIN_SEEN):
            raise UserError(
                f"{self.bad} bad samples among {self.seen} are more than data.max_bad_rate {self.max_rate}; "
                f"mend the data or raise the rate. The last ones:",
                *list_bad(self.recent),
            )

    def state_dict(self) -> dict[str, int]:
        return {"seen": self.seen, "bad": self.bad}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]
        self.bad = state["bad"]
