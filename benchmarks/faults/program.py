"""The program as a black box: command lines in, exit codes and words out."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.faults import ROOT

#: How long a command may take before it is said to hang.
LIMIT_SECONDS = 60.0
#: The same of one that trains, on cores that others may share.
TRAINING_SECONDS = 150.0
#: Beginnings of variables of the environment that no trial is to see.
FOREIGN_VARIABLES = (
    "SLURM_",
    "FIBER_",
    "TORCHELASTIC_",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "MASTER_",
    "PYTHONUNBUFFERED",
)


@dataclass
class Ended:
    """How a command line ended. code: of the worst rank, negative for a signal; out, err: of all ranks."""

    argv: list[str]
    codes: list[int]
    out: str
    err: str
    seconds: float
    timed_out: bool

    @property
    def code(self) -> int:
        return max(self.codes, key=lambda code: (code != 0, abs(code)))

    @property
    def command(self) -> str:
        """As it is typed."""
        return shlex.join(["fiber", *self.argv]).encode(errors="backslashreplace").decode()

    @property
    def said(self) -> str:
        return self.out + self.err


@dataclass
class Rank:
    """Which process of a run this is. port: of the first rank."""

    number: int
    world: int
    port: int

    def environment(self) -> dict[str, str]:
        """As torchrun sets it."""
        number = str(self.number)
        ranks = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": str(self.world)}
        return ranks | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port)}


@dataclass
class Program:
    """Runs command lines of `fiber`. home: a folder for caches and temporary files, so that nothing of the user's is
    used or touched; prefix: words before the server's command, such as those that give it mounts of its own; variables:
    of the environment."""

    home: Path
    prefix: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        for name in ("tmp", "cache"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        command = [*self.prefix, sys.executable, "-m", "benchmarks.faults.server"]
        log = self.home / "server.log"
        with log.open("w") as stderr:
            self._server = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=self.environment(),
                cwd=ROOT,
            )
        assert self._answer() == "ready\n", f"{shlex.join(command)} does not start: {log.read_text()}"
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def environment(self) -> dict[str, str]:
        """Of every command: one thread, no GPU, English, and folders of its own for what is kept between commands."""
        env = {}
        for name, value in os.environ.items():
            if not name.startswith(FOREIGN_VARIABLES):
                env[name] = value
        extensions = Path.home() / ".cache" / "torch_extensions"
        return env | {
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "TMPDIR": str(self.home / "tmp"),
            "TORCH_EXTENSIONS_DIR": os.environ.get("TORCH_EXTENSIONS_DIR", str(extensions)),
            "HF_HUB_OFFLINE": "1",
            **self.variables,
        }

    def run(
        self,
        *argv: object,
        cwd: Path,
        limit: float = LIMIT_SECONDS,
        signals: Sequence[tuple[float, int, int | None]] = (),
        ranks: int = 1,
        rank_words: Sequence[Sequence[object]] = (),
        stdin: str = "",
        stdout: Path | None = None,
        **variables: str,
    ) -> Ended:
        """`fiber ARGV` in the folder `cwd`. ranks: as many processes, as under torchrun; rank_words: more words of
        each; signals: (seconds, number, rank or None for all); stdout: a file for what is printed."""
        words = [str(word) for word in argv]
        environments: list[dict[str, str]] = [dict(variables)]
        if ranks > 1:
            port = free_port()
            environments = [Rank(number, ranks, port).environment() | variables for number in range(ranks)]
        argvs = [words] * ranks
        if rank_words:
            argvs = [[*words, *map(str, more)] for more in rank_words]
        request = {"do": "run", "argvs": argvs, "ranks": environments, "cwd": str(cwd), "limit": limit}
        streams = {"stdin": stdin, "stdout": str(stdout) if stdout else None}
        answer = self._ask(request | streams | {"signals": list(signals)})
        out, err = "".join(answer["out"]), "".join(answer["err"])
        return Ended(words, answer["codes"], out, err, answer["seconds"], answer["timed_out"])

    def call(self, function: str, *arguments: Any) -> Any:
        """`module:function` of this package in the server's process, which may see other disks."""
        return self._ask({"do": "call", "function": function, "arguments": arguments})

    def run_process(
        self,
        *argv: object,
        cwd: Path,
        limit: float = TRAINING_SECONDS,
        signals: Sequence[tuple[float, int]] = (),
        **variables: str,
    ) -> Ended:
        """The same as a process from nothing, imports and launcher included. signals: (seconds, number)."""
        process = self.start_process(*argv, cwd=cwd, **variables)
        for seconds, number in sorted(signals):
            if process.has_ended(process.began + seconds):
                break
            process.popen.send_signal(number)
        return process.ended(limit)

    def start_process(self, *argv: object, cwd: Path, **variables: str) -> "Process":
        """Start it, and go on."""
        return Process([str(word) for word in argv], self.prefix, cwd, self.environment() | variables)

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._answer())

    def _answer(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline()


class Process:
    """`fiber ARGV` as a process from nothing, leader of its session. began: on the monotonic clock."""

    def __init__(self, argv: list[str], prefix: Sequence[str], cwd: Path, env: Mapping[str, str]):
        self.argv = argv
        self.began = time.monotonic()
        self._streams = (tempfile.TemporaryFile(), tempfile.TemporaryFile())  # noqa: SIM115 - closed with the object
        self.popen = subprocess.Popen(
            [*prefix, sys.executable, "-m", "fiber_cli", *argv],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._streams[0],
            stderr=self._streams[1],
            start_new_session=True,
        )

    def has_ended(self, deadline: float) -> bool:
        """Whether it ends before the monotonic clock shows this."""
        try:
            self.popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait_until(self, is_so: Callable[[], bool], limit: float = TRAINING_SECONDS) -> None:
        """Wait for something that it does. AssertionError where it ends before."""
        while not is_so():
            assert self.popen.poll() is None, self.ended(0).said
            assert time.monotonic() < self.began + limit, "it does not come"
            time.sleep(0.05)

    def children(self) -> list[int]:
        """The process ids of those that it has started."""
        number = self.popen.pid
        return [int(child) for child in Path(f"/proc/{number}/task/{number}/children").read_text().split()]

    def ended(self, limit: float) -> Ended:
        """Wait for its end, and kill it where it takes longer."""
        timed_out = not self.has_ended(self.began + limit)
        if timed_out:
            os.killpg(self.popen.pid, signal.SIGKILL)
        code = self.popen.wait()
        texts = []
        for stream in self._streams:
            stream.seek(0)
            texts.append(stream.read().decode(errors="backslashreplace"))
        return Ended(self.argv, [code], *texts, seconds=time.monotonic() - self.began, timed_out=timed_out)


def free_port() -> int:
    from fiber_cli.distributed.launch import free_port

    return free_port()
