"""What one rank finds wrong ends all of them, at once and in one line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from fiber_cli.distributed import collectives
from fiber_cli.distributed.folder_lock import FolderLock
from fiber_cli.errors import AgreedError, UserError
from fiber_cli.outputs import write_problem

Answer = TypeVar("Answer")


@contextmanager
def failing_together() -> Iterator[None]:
    """A UserError, or a failure of the file system, inside on any rank becomes one UserError on every rank. A
    collective: every rank enters and leaves it."""
    problem: str | None = None
    try:
        yield
    except UserError as error:
        problem = str(error)
    except Exception as error:
        if write_problem(error) is None:
            raise
        problem = reason_of(error)
    for told in collectives.gather_objects(problem):
        if told is not None:
            raise AgreedError(told)


def reason_of(error: Exception, file: Path | None = None) -> str:
    """A failure of the file system in words, with the file that the error names, else `file`."""
    reason = write_problem(error) or str(error)
    named = (error.filename if isinstance(error, OSError) else None) or file
    return f"{reason} ({named})" if named else reason


def asked_of_main(question: Callable[[], Answer]) -> Answer:
    """What the first rank finds, on every rank; its UserError is raised on all."""
    answer: Answer | None = None
    with failing_together():
        if collectives.is_main():
            answer = question()
    found: Answer = collectives.gather_objects(answer)[0]
    return found


@contextmanager
def locked_by_all(folder: Path) -> Iterator[None]:
    """Inside, these ranks alone write into a folder: the first holds its lock. Raises UserError on all, see
    `FolderLock.acquire`."""
    lock = FolderLock(folder)
    with failing_together():
        if collectives.is_main():
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
