"""The process that workers of a rank are forked from.

A rank itself is not to be forked: threads of its group's collectives take and drop Python objects, and a process that
is forked while one of them holds the lock of the interpreter's threads waits for that lock for ever (CPython 3.11,
`PyOS_AfterFork_Child`), and with it whoever waits for a batch of its. The server is begun by an exec, for which no lock
matters, has no such threads, and has imported what takes time. It ends with the rank and its workers.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import ForkServerContext, ForkServerProcess

from fiber_cli.data.worker_process import SentProcess
from fiber_cli.errors import UserError
from fiber_cli.stop_signals import held_back

#: What every server imports; what else workers use is of these rooms.
_IMPORTED = ("torch.utils.data", "torch.multiprocessing", "PIL.Image", "fiber_cli.data.in_fork_server")
_ROOMS = ("fiber_cli.data.", "fiber_cli.tasks.")
#: Bytes of the path of a folder in which sockets still have a path that is short enough for them: of 104 bytes, on
#: Linux 108, `multiprocessing` takes 32 for a folder and a name, and one ends it.
_LONGEST_FOLDER = 71
#: Where sockets go instead, the first that takes files.
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
#: Of the process that tells of what a rank has left behind that was killed, and removes it all the same.
_SILENT = "ignore:resource_tracker:UserWarning"


def run_server() -> None:
    """Start the server where it does not run. It never hears of the signals that ask a run to stop and save, and finds
    the modules that this process finds. Raises UserError where it cannot be started."""
    imported = filter(_is_for_workers, list(sys.modules))
    forkserver.set_forkserver_preload([*_IMPORTED, *imported])
    try:
        _place_sockets()
        with _environment(), held_back():
            resource_tracker.ensure_running()
            with held_back():  # anew, as starting the tracker lets some through
                forkserver.ensure_running()
    except OSError as error:
        raise UserError(
            f"the process that workers are forked from cannot be started ({error.strerror or error}): let TMPDIR name "
            f"a folder that takes files, by a path of at most {_LONGEST_FOLDER} bytes, or read without workers "
            "(data.workers=0, --workers 0)"
        ) from error


def _place_sockets() -> None:
    """Choose the folder for the sockets of this process and its workers: where TMPDIR's path is too long for them, as
    batch systems have it, a shorter one."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) > _LONGEST_FOLDER:
        fitting = (folder for folder in _SHORT_FOLDERS if os.access(folder, os.W_OK | os.X_OK))
        tempfile.tempdir = next(fitting, usual)
    try:
        util.get_temp_dir()  # kept by `multiprocessing` from now on
    finally:
        tempfile.tempdir = usual


def _is_for_workers(module: str) -> bool:
    """Whether workers of a rank that has imported it use it."""
    is_of_tokenizer = module.startswith("transformers.") and "tokenization" in module
    return is_of_tokenizer or module.startswith(_ROOMS)


@contextmanager
def _environment() -> Iterator[None]:
    """That of the server, from which its workers go back to that of this process."""
    folders = [folder or os.getcwd() for folder in sys.path]
    filters = filter(None, (os.environ.get("PYTHONWARNINGS"), _SILENT))
    changed = {
        "PYTHONPATH": os.pathsep.join(folders),
        "PYTHONSAFEPATH": "1",  # else the current folder would come first, whatever lies in it
        "PYTHONWARNINGS": ",".join(filters),
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ |= changed
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _ForkedProcess(SentProcess, ForkServerProcess):
    pass


class ForkedWorkers(ForkServerContext):
    """What starts workers by having the server, which runs by then, fork itself."""

    Process = _ForkedProcess
