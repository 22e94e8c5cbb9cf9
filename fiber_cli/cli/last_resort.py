"""How the program ends where nothing else knows what to say: one line, and a report in a file."""

import importlib.metadata
import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import fiber_cli
from fiber_cli.distributed.rank_report import Report, report
from fiber_cli.errors import EXIT_FAILED
from fiber_cli.printing import first_line, print_no_more, say, say_lines

#: Set to 1, prints the traceback of an unforeseen error instead of writing it into a file.
DEBUG = "FIBER_DEBUG"
#: Packages whose versions a report has.
_PACKAGES = ("torch", "transformers", "tokenizers", "deepspeed", "numpy", "pillow", "safetensors", "typer")


def tell(error: BaseException, argv: Sequence[str]) -> None:
    """Tell the user of an error that nothing foresaw: in one line its kind and where the report is, or under
    FIBER_DEBUG=1 the traceback."""
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        say_lines("".join(traceback.format_exception(error)).rstrip())
        return
    line = _in_words(error)
    try:
        line += f"; the full report is in {_write(error, argv)}"
    except Exception as problem:  # no folder, no space, no memory: the line above all
        line += f"; a report could not be written ({_in_words(problem)}), {DEBUG}=1 prints it"
    report(Report(line))


def flushed(code: str | int | None) -> str | int | None:
    """The exit code, once standard output is written. A reader that is gone (`fiber … | head`) ends it quietly, any
    other fault with a line, both with EXIT_FAILED."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            say(f"fiber: standard output: {error.strerror}")
        print_no_more()
        return EXIT_FAILED
    return code


def _in_words(error: BaseException) -> str:
    words = first_line(error)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _write(error: BaseException, argv: Sequence[str]) -> Path:
    """The file with the report, of each process another: in the user's folder for such things, else a temporary one."""
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID"))
    of_rank = "" if rank is None else f"-rank{rank}"
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}{of_rank}-{os.getpid()}.txt"
    content = "\n".join(_report(error, argv)).encode(errors="backslashreplace")
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state", "fiber")
        state.mkdir(parents=True, exist_ok=True)
        file = state / name
        file.write_bytes(content)
    except (OSError, RuntimeError):  # Path.home() where there is none
        handle, temporary = tempfile.mkstemp(prefix="fiber-", suffix=f"-{name}")
        file = Path(temporary)
        with open(handle, "wb") as opened:
            opened.write(content)
    return file


def _report(error: BaseException, argv: Sequence[str]) -> Iterator[str]:
    yield f"command: {shlex.join(['fiber', *argv])}"
    yield f"time: {time.strftime('%Y-%m-%d %H:%M:%S %z')}"
    yield f"folder: {_current_folder()}"
    yield f"fiber {fiber_cli.__version__}, Python {platform.python_version()}, {platform.platform()}"
    for package in _PACKAGES:
        try:
            yield f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{package} is not installed"
    for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID"):
        if variable in os.environ:
            yield f"{variable}={os.environ[variable]}"
    yield ""
    yield "".join(traceback.format_exception(error))


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "no longer there"
