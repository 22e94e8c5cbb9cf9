"""Threads that wait for servers and disks, and for which nobody else waits."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(read: Callable[[Item], Result], items: Sequence[Item], most: int) -> Iterator[Result]:
    """`read` of each, in order, by at most so many threads. Where the caller ends before them, by an error or a signal,
    nothing more is begun, and the process ends without those that still wait; a pool of `concurrent.futures` would
    hold it until the last server has answered."""
    futures: list[Future[Result]] = [Future() for _ in items]
    pending: SimpleQueue[tuple[Future[Result], Item]] = SimpleQueue()
    for pair in zip(futures, items, strict=True):
        pending.put(pair)

    def work() -> None:
        while (taken := _taken(pending)) is not None:
            future, item = taken
            try:
                future.set_result(read(item))
            except BaseException as error:
                future.set_exception(error)

    for _ in range(min(most, len(items))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for future in futures:
            yield future.result()
    finally:
        while _taken(pending) is not None:
            pass


def _taken(pending: "SimpleQueue[Item]") -> Item | None:
    """The next of a queue; None where there is none."""
    try:
        return pending.get_nowait()
    except Empty:
        return None
