"""Worker processes that are not forked from the one that starts them, but sent their work."""

import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from pickle import PicklingError

from fiber_cli.errors import UserError
from fiber_cli.printing import shorten_warnings, warnings_are_short


class SentProcess(BaseProcess):
    """A process that is sent its work, and what else a forked one would have had of the process that starts it."""

    def start(self) -> None:
        """Raises UserError for work that cannot be sent."""
        self._environment = dict(os.environ)
        self._short_warnings = warnings_are_short()
        try:
            with _main_untold():
                super().start()
        except (PicklingError, AttributeError, TypeError) as error:
            raise UserError(
                f"what reads the data cannot be sent to worker processes ({error}): define it in a module of its own, "
                "not in a function nor in the script that is run; or read without them (data.workers=0, --workers 0)"
            ) from error

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self._environment)
        if self._short_warnings:
            shorten_warnings()
        end_with_parent()
        super().run()


class _SpawnedProcess(SentProcess, SpawnProcess):
    pass


class SpawnedWorkers(SpawnContext):
    """What starts workers by running Python anew."""

    Process = _SpawnedProcess


@contextmanager
def _main_untold() -> Iterator[None]:
    """Workers would run the script that is being run, once more, for what is defined in it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def end_with_parent() -> None:
    """Have a process that `multiprocessing` has not forked end where the one that started it does."""
    threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker"
    parent.join()
    os._exit(1)
