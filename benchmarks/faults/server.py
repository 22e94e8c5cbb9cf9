"""A process that has imported the program once and runs command lines of it in forked children, as fast as can be.

    python -m benchmarks.faults.server

Reads one request a line from standard input, JSON, and answers each with a line of JSON; see `Program`. A child is as
a process of `python -m fiber_cli`, but for its start: a group and a session of its own, its standard streams in files,
and the interpreter's own end.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

#: What takes long to import, for all verbs.
IMPORTED = (
    "fiber_cli.training.fit",
    "fiber_cli.training.plan",
    "fiber_cli.evaluation.evaluate",
    "fiber_cli.evaluation.odinw13",
    "fiber_cli.inference.detect",
    "fiber_cli.inference.describe",
    "fiber_cli.inference.search",
    "fiber_cli.inference.sheet",
    "fiber_cli.checkpoints.published.file",
    "fiber_cli.tasks.vqa.vocabulary",
    "fiber_cli.tasks.coarse.task",
    "fiber_cli.tasks.regions.task",
    "fiber_cli.tasks.caption.data",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "deepspeed",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "pycocotools.cocoeval",
    "pycocoevalcap.cider.cider",
)
#: Between two looks at the children.
POLL_SECONDS = 0.01
#: How long killed children may take to end.
PATIENCE_SECONDS = 10.0


def serve() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imported packages print is no answer
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # children then leave these pages shared
    print("ready", file=answers, flush=True)
    for line in iter(sys.stdin.buffer.readline, b""):
        request = json.loads(line)
        answer = call(request["function"], request["arguments"]) if request["do"] == "call" else run(request)
        print(json.dumps(answer), file=answers, flush=True)


def call(function: str, arguments: list[Any]) -> Any:
    """A function of a module of this package, in this process, which may see other disks than the caller."""
    module, name = function.split(":")
    return getattr(importlib.import_module(f"benchmarks.faults.{module}"), name)(*arguments)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """One command line, in as many processes as `ranks` has, each with these variables of the environment.

    signals: [seconds since the start, number, rank or None for all]; stdout: a file for standard output, or None. A
    child that is still there after `limit` seconds is killed, with all that it started.
    """
    began = time.monotonic()
    # No context manager, which would also end it in a child, by its SystemExit.
    folder = Path(tempfile.mkdtemp())
    children = [fork(request, rank, folder) for rank in range(len(request["ranks"]))]
    codes, timed_out = wait(children, request["signals"], began + request["limit"], began)
    outputs = {}
    for stream in ("out", "err"):
        texts = [(folder / f"{stream}{rank}").read_bytes() for rank in range(len(children))]
        outputs[stream] = [text.decode(errors="backslashreplace") for text in texts]
    shutil.rmtree(folder)
    return {"codes": codes, **outputs, "seconds": time.monotonic() - began, "timed_out": timed_out}


def fork(request: dict[str, Any], rank: int, folder: Path) -> int:
    """Start a child and return its process id; in the child this does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    os.setsid()
    stdin = folder / f"in{rank}"
    stdin.write_text(request["stdin"])
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    for descriptor, stream in ((1, "out"), (2, "err")):
        file = str(folder / f"{stream}{rank}")
        target = request["stdout"] if stream == "out" and request["stdout"] else file
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT))
        os.dup2(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    # What started the campaign may have ignored them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.update(request["ranks"][rank])
    os.chdir(request["cwd"])
    os.umask(0o022)
    tempfile.tempdir = None
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as long as the process
    argv = request["argvs"][rank]
    sys.argv = ["fiber", *argv]
    end(argv)


def end(argv: list[str]) -> NoReturn:
    """Run a command line and end this process as the interpreter ends, but for taking apart all that was imported,
    which takes two seconds."""
    from fiber_cli.cli.app import main

    code: Any = 0
    try:
        main(argv)
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


def wait(
    children: list[int], signals: list[tuple[float, int, int | None]], deadline: float, began: float
) -> tuple[list[int], bool]:
    """The exit codes of the children, negative for a signal, and whether they had to be killed."""
    codes: dict[int, int] = {}
    due = sorted(signals, key=lambda each: each[0])
    timed_out = False
    while len(codes) < len(children):
        now = time.monotonic()
        while due and now - began >= due[0][0]:
            _, number, rank = due.pop(0)
            for child in children if rank is None else [children[rank]]:
                if child not in codes:
                    os.kill(child, number)
        if now > deadline and not timed_out:
            timed_out = True
            for child in children:
                kill_group(child)
        assert now < deadline + PATIENCE_SECONDS, "killed children do not end"
        for child in children:
            if child not in codes:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(POLL_SECONDS)
    for child in children:
        kill_group(child)  # what it started and left
    return [codes[child] for child in children], timed_out


def kill_group(leader: int) -> None:
    """All of a child's session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


if __name__ == "__main__":
    serve()
