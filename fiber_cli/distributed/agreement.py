"""What all ranks must have the same, and errors that end all of them.

Every function here is a collective; in one process there is nothing to agree on.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fiber_cli.distributed.collectives import gather_objects, is_main, rank, world_size
from fiber_cli.distributed.meeting import host, ranks_in_words
from fiber_cli.errors import EXIT_FAILED, SharedError, UserError, first_names
from fiber_cli.outputs import write_problem

#: Of a fact that a rank does not have.
ABSENT = "absent"
#: Seconds until what one machine wrote must show on the others; network file systems take their time.
VISIBLE_SECONDS = 20.0
#: The most that an error says of one value.
_SHOWN = 160
#: How many things that differ are listed.
_LISTED = 4


class _Failure(NamedTuple):
    message: str
    exit_code: int
    details: tuple[str, ...] = ()


@contextmanager
def failing_together() -> Iterator[None]:
    """A UserError or a failure of the file system inside, on any rank, becomes a SharedError on every rank, in one
    process a UserError. No collectives inside."""
    failure = None
    try:
        yield
    except UserError as error:
        if world_size() == 1:
            raise
        failure = _Failure(error.message, error.exit_code, error.details)
    except Exception as error:  # libraries have kinds of their own for a full disk
        if write_problem(error) is None:
            raise
        failure = _Failure(reason_of(error), EXIT_FAILED)
    failures = gather_objects((host(), failure))
    failed = [number for number, (_, each) in enumerate(failures) if each is not None]
    if not failed:
        return
    first = failures[failed[0]][1]
    same = [number for number in failed if failures[number][1] == first]
    where = ""
    if len(same) < world_size():
        hosts = [name for name, _ in failures]
        where = f"{_with_hosts(same, hosts)}: "
    raise _shared(f"{where}{first.message}", first.exit_code, *first.details)


def reason_of(error: Exception, file: Path | None = None) -> str:
    """A failure of the file system in words, with the file that the error names, else `file`."""
    reason = write_problem(error) or str(error)
    named = (error.filename if isinstance(error, OSError) else None) or file
    return f"{reason} ({named})" if named else reason


def require_agreement(find_facts: Callable[[], Mapping[str, str]]) -> None:
    """Every rank calls this with a function that finds named facts, which must be the same on all. Raises SharedError
    that names what differs with the values, ranks and hosts; also where a rank finds none (UserError, OSError)."""
    if world_size() == 1:
        return
    facts: Mapping[str, str] = {}
    with failing_together():
        facts = find_facts()
    of_ranks = gather_objects((host(), dict(facts)))
    hosts = [name for name, _ in of_ranks]
    differing = []
    for name in _names([known for _, known in of_ranks]):
        values: dict[str, list[int]] = {}
        for number, (_, known) in enumerate(of_ranks):
            values.setdefault(known.get(name, ABSENT), []).append(number)
        if len(values) > 1:
            told = []
            for value, ranks in values.items():
                told.append(f"{_shortened(value)} on {_with_hosts(ranks, hosts)}")
            differing.append(f"{name} is {' but '.join(told)}")
    if differing:
        raise _shared(
            f"ranks differ: {_in_one_line(differing)}. All must read the same files and be given the same command"
        )


def require_shared_folder(folder: Path) -> None:
    """That all ranks see one folder, which rank 0 makes where it is missing. Raises SharedError that names the ranks
    and hosts that see another."""
    if world_size() == 1:
        return
    token = None
    with failing_together():
        if is_main():
            folder.mkdir(parents=True, exist_ok=True)
            # A name that no machine has looked for, so that none remembers it as missing.
            token = f".ranks-{secrets.token_hex(8)}"
            (folder / token).touch()
    token = gather_objects(token)[0]
    try:
        sights = gather_objects((host(), str(folder.absolute()), _appears(folder, token)))
    finally:
        if is_main():
            (folder / token).unlink(missing_ok=True)
    gather_objects(None)  # nobody looks into the folder before it is gone
    hosts = [name for name, _, _ in sights]
    blind = [number for number, (_, _, sees) in enumerate(sights) if not sees]
    if blind:
        raise _shared(
            f"{sights[0][1]}, the output folder of rank 0 on {hosts[0]}, is not what {_with_hosts(blind, hosts)} "
            f"sees as {sights[blind[0]][1]}; give --output on a file system that all machines share"
        )


def _appears(folder: Path, name: str) -> bool:
    """Whether a file shows in a folder, soon."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not (folder / name).is_file():
        if time.monotonic() > deadline:
            return False
        for above in (folder, folder.parent):
            if above.is_dir():
                os.listdir(above)  # asks the file server anew
        time.sleep(0.2)
    return True


def _names(of_ranks: list[dict[str, str]]) -> list[str]:
    """Of all facts, in the order of the ranks that know them."""
    names: dict[str, None] = {}
    for known in of_ranks:
        names |= dict.fromkeys(known)
    return list(names)


def _in_one_line(differing: list[str]) -> str:
    more = f"; and {len(differing) - _LISTED} more" if len(differing) > _LISTED else ""
    return "; ".join(differing[:_LISTED]) + more


def _shortened(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"


def _with_hosts(ranks: list[int], hosts: list[str]) -> str:
    """Such as "rank 1 (node7)"."""
    names = first_names(list(dict.fromkeys(hosts[number] for number in ranks)), 3)
    return f"{ranks_in_words(ranks)} ({names})"


def _shared(message: str, exit_code: int = EXIT_FAILED, *details: str) -> SharedError:
    return SharedError(message, exit_code, *details, is_told_here=rank() == 0)
