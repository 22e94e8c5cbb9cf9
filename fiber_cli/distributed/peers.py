"""What the end of another process, a rank or a reader of data, looks like here."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as td

from fiber_cli.distributed.collectives import rank, world_size
from fiber_cli.distributed.meeting import host, timeout_seconds
from fiber_cli.errors import UserError

#: In the words of gloo, of NCCL and of the store.
_LOST = re.compile(
    "connection (was )?(closed|reset|refused|aborted)|broken pipe|socket closed|ncclRemoteError|remote process exit|"
    "failed to (recv|send|connect)|writeError|readError|unable to connect",
    re.IGNORECASE,
)
_LATE = re.compile("timed? ?out", re.IGNORECASE)
#: What torch's own errors of communication name, where they are plain RuntimeErrors.
_COMMUNICATION = re.compile("gloo|nccl|c10d|tcpstore", re.IGNORECASE)

_READER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: )?([^.\n]*)")


class PeerLost(UserError):
    """Another rank has ended, so that this one cannot go on."""

    follows = True


class PeerLate(UserError):
    """Another rank did not come to a collective in time."""


def peer_error(error: BaseException) -> UserError | None:
    """The error as one line, where it comes of another rank; None for any other."""
    text = str(error)
    is_communication = isinstance(error, td.DistError) or bool(_COMMUNICATION.search(text))
    if world_size() == 1 or not isinstance(error, RuntimeError) or not is_communication:
        return None
    here = f"rank {rank()} on {host()}"
    if _LATE.search(text):
        return PeerLate(
            f"{here}: another rank did not come to where this one waits within {timeout_seconds():g} s: it hangs or is "
            "much slower; FIBER_TIMEOUT sets the seconds"
        )
    if _LOST.search(text):
        return PeerLost(
            f"{here}: another rank has ended, and this one cannot go on without it; what that rank, or its machine's "
            "log, said last is the reason"
        )
    return None


def reader_error(error: BaseException) -> UserError | None:
    """The end of a process that reads data (`data.workers`), as torch's loader tells it, in one line; None for any
    other error."""
    ended = _READER.search(str(error))
    how = "the connection to it broke" if ended is None else f"process {ended[1]} {ended[2].strip()}"
    is_readers = ended is not None if isinstance(error, RuntimeError) else _is_between_processes(error)
    if not is_readers:
        return None
    return UserError(
        f"rank {rank()} on {host()}: a process that reads its data was ended ({how}): likely out of memory, or shared "
        "memory is full (/dev/shm; of a container --shm-size); fewer data.workers need less"
    )


def _is_between_processes(error: BaseException) -> bool:
    """Whether it was raised where a tensor of a reader is taken over."""
    if not isinstance(error, ConnectionError | EOFError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return any("multiprocessing" in Path(frame.filename).parts for frame in frames)


@contextmanager
def telling_ended_processes() -> Iterator[None]:
    """Errors inside that another rank's end brings become PeerLost or PeerLate, those of a reader's end a UserError."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError, UserError) as error:
        told = peer_error(error) or reader_error(error)
        if told is None and error.__cause__ is not None:
            told = peer_error(error.__cause__)
        if told is None:
            raise
        raise told from error
