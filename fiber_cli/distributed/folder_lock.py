"""One process, or one group of ranks, a folder: a lock of the kernel's, which goes with the process however that ends.

The lock lies in the file LOCK of the folder; who holds it stands in OWNER beside it. Both stay hidden and small; the
lock file is never removed, because another process may be waiting for it.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import filelock

from fiber_cli.errors import UserError
from fiber_cli.outputs import LOCK, OWNER, is_full, missing_folders, remove_empty, replace, write_problem
from fiber_cli.parsing import parse_json
from fiber_cli.printing import say
from fiber_cli.regular_files import read_regular

#: How long the lock is waited for: its holder may be ending.
PATIENCE_SECONDS = 5.0
#: The same where the holder has been killed, and what it started (ranks, workers that read data) is still ending.
DYING_SECONDS = 30.0
POLL_SECONDS = 0.1


class Owner(NamedTuple):
    """Who holds a lock. began: when, in local time."""

    pid: int
    host: str
    began: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.began}"

    @property
    def has_ended(self) -> bool:
        """Whether it is known that the process no longer runs."""
        if self.host != socket.gethostname() or sys.platform == "win32":
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False  # another user's
        return False


class FolderLock:
    """The lock of a folder, which is made where it is not there. goes_on: whether what is to be done goes on with what
    the folder holds, so that no other folder would do."""

    def __init__(self, folder: Path, *, goes_on: bool = False):
        self.folder = folder
        self.goes_on = goes_on
        self._lock = filelock.FileLock(folder / LOCK)
        self._is_held = False

    def acquire(self) -> None:
        """Raises UserError where another process holds the lock, naming it, and where the folder cannot be written
        into. On a file system without locks that is said, and the word of OWNER is taken."""
        made = missing_folders(self.folder)
        is_new = not os.path.lexists(self.folder / LOCK)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._take():
                raise self._refusal()
            replace(self.folder / OWNER, json.dumps(_this_process()._asdict()).encode())
        except OSError as error:
            self._lock.release()
            if is_new:
                with suppress(OSError):
                    (self.folder / LOCK).unlink()
            remove_empty(made)
            problem = write_problem(error) or str(error)
            raise UserError(f"{self.folder}: cannot be written into ({problem}); {self._mend(error)}") from error
        self._is_held = True

    def _mend(self, error: OSError) -> str:
        """What to do about a folder that cannot be written into."""
        if not self.goes_on:
            return "give another --output"
        return "then try again" if is_full(error) else "make it writable, or go on with a copy of it"

    def _take(self) -> bool:
        """Whether the lock has been taken, after as long a wait as makes sense."""
        began = time.monotonic()
        while True:
            try:
                self._lock.acquire(timeout=0)
                return True
            except filelock.Timeout:
                pass
            except (OSError, NotImplementedError) as error:
                return self._take_by_owner(error)
            owner = self._owner()
            patience = DYING_SECONDS if owner is not None and owner.has_ended else PATIENCE_SECONDS
            if time.monotonic() - began > patience:
                return False
            time.sleep(POLL_SECONDS)

    def _take_by_owner(self, error: Exception) -> bool:
        """Where the file system has no locks; raises `error` where the folder cannot be written into at all."""
        if isinstance(error, OSError) and not os.access(self.folder, os.W_OK | os.X_OK):
            raise error
        if isinstance(error, OSError) and write_problem(error) != error.strerror:
            raise error  # a full disk
        say(f"{self.folder}: its file system has no locks ({error}); nothing but {OWNER} keeps two runs apart")
        owner = self._owner()
        return owner is None or owner.host != socket.gethostname() or owner.has_ended

    def _owner(self) -> Owner | None:
        """Who wrote OWNER; None where it is not there or says nothing."""
        try:
            content = parse_json(read_regular(self.folder / OWNER))
            return Owner(int(content["pid"]), str(content["host"]), str(content["began"]))
        except (OSError, ValueError, LookupError, TypeError, OverflowError):
            return None

    def _refusal(self) -> UserError:
        owner = self._owner()
        holder = "another process" if owner is None else str(owner)
        elsewhere = "" if self.goes_on else ", or give another --output"
        return UserError(f"{self.folder} is in use by {holder}; wait for it or stop it{elsewhere}")

    def release(self) -> None:
        """Give the folder free; without a lock nothing happens."""
        if not self._is_held:
            return
        self._is_held = False
        with suppress(OSError):  # the lock tells, not the file
            (self.folder / OWNER).unlink(missing_ok=True)
        self._lock.release()


def _this_process() -> Owner:
    return Owner(os.getpid(), socket.gethostname(), f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, this process alone writes into a folder. Raises UserError, see `FolderLock.acquire`."""
    lock = FolderLock(folder)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
