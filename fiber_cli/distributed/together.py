"""What one rank does or asks for all of them; what it finds wrong ends all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from fiber_cli.distributed import collectives
from fiber_cli.distributed.agreement import failing_together
from fiber_cli.distributed.folder_lock import FolderLock

Answer = TypeVar("Answer")


def asked_of_main(question: Callable[[], Answer]) -> Answer:
    """What the first rank finds, on every rank; its UserError is raised on all."""
    answer: Answer | None = None
    with failing_together():
        if collectives.is_main():
            answer = question()
    found: Answer = collectives.gather_objects(answer)[0]
    return found


@contextmanager
def locked_by_all(folder: Path, *, goes_on: bool = False) -> Iterator[None]:
    """Inside, these ranks alone write into a folder: the first holds its lock. goes_on: see `FolderLock`.
    Raises UserError on all, see `FolderLock.acquire`."""
    lock = FolderLock(folder, goes_on=goes_on)
    with failing_together():
        if collectives.is_main():
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
