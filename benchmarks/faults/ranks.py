"""Ranks that do not have the same, ranks that die, and signals at any time."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.faults.bench import Bench, last_line, refusal_problem, rough_end, success_problem
from benchmarks.faults.folders import LONG
from benchmarks.faults.kinds import Case, Verdict
from benchmarks.faults.program import TRAINING_SECONDS
from benchmarks.faults.stock import Stock, copy, train_words, write_shards

#: Within so many seconds ranks must have found that they differ, or that one has died.
TOLD_SECONDS = 60.0
DEAD_SECONDS = 20.0
TWO = ("runtime.micro_batch=2",)

#: Makes what differs, in the folder of the trial: the words of the first rank, and of the second.
Differ = Callable[[Stock, Path], tuple[Sequence[object], Sequence[object]]]


def _setting(name: str, first: object, second: object) -> Differ:
    return lambda stock, folder: ([f"{name}={first}"], [f"{name}={second}"])


def _other_shards(stock: Stock, folder: Path) -> tuple[Sequence[object], Sequence[object]]:
    """The second rank lacks a shard."""
    words = []
    for number in range(2):
        shards = folder / f"{number}" / "shards"
        shards.mkdir(parents=True)
        write_shards(shards)
        words.append([f"data.train=[{{kind: webdataset, shards: {shards}}}]"])
    (shards / "1.tar").unlink()
    return words[0], words[1]


def _other_captions(stock: Stock, folder: Path) -> tuple[Sequence[object], Sequence[object]]:
    """The JSON of the second rank has another caption, and as many."""
    words = []
    for number in range(2):
        file = copy(stock.karpathy(), folder / f"{number}")
        file.write_text(file.read_text().replace("number 0", f"number 0{number}"))
        words.append([f"data.train=[{{kind: karpathy, json: {file}, images: {stock.pictures()}}}]"])
    return words[0], words[1]


def _other_order_of_pictures(stock: Stock, folder: Path) -> tuple[Sequence[object], Sequence[object]]:
    """The JSON of the second rank has a picture fewer."""
    import json

    words = []
    for number in range(2):
        file = copy(stock.karpathy(), folder / f"{number}")
        content = json.loads(file.read_text())
        content["images"] = content["images"][number:]
        file.write_text(json.dumps(content))
        words.append([f"data.train=[{{kind: karpathy, json: {file}, images: {stock.pictures()}}}]"])
    return words[0], words[1]


def _other_weights(stock: Stock, folder: Path) -> tuple[Sequence[object], Sequence[object]]:
    """--init-from names another checkpoint."""
    steps = stock.run("coarse") / "checkpoints"
    return ["--init-from", steps / "step-000001"], ["--init-from", steps / "step-000002"]


def _other_folder(stock: Stock, folder: Path) -> tuple[Sequence[object], Sequence[object]]:
    """A path that is another folder on each machine."""
    return ["--output", folder / "run"], ["--output", folder / "local"]


def _one_resumes(stock: Stock, folder: Path) -> tuple[Sequence[object], Sequence[object]]:
    return ["--resume"], []


def _one_has_no_data(stock: Stock, folder: Path) -> tuple[Sequence[object], Sequence[object]]:
    return ["data.train=[{kind: scenes, count: 16}]"], ["data.train=[{kind: webdataset, shards: /nowhere/*.tar}]"]


DIFFERENCES: dict[str, Differ] = {
    "shards": _other_shards,
    "captions of the same number": _other_captions,
    "pictures fewer": _other_order_of_pictures,
    "a number of scenes": _setting("data.train.0.count", 16, 32),
    "a learning rate": _setting("optim.lr", 0.001, 0.002),
    "a seed": _setting("runtime.seed", 1, 2),
    "a number of steps": _setting("optim.steps", 2, 4),
    "a ZeRO stage": _setting("runtime.zero_stage", 0, 1),
    "a width": _setting("model.hidden", 64, 128),
    "a checkpoint to begin with": _other_weights,
    "an output folder": _other_folder,
    "one that resumes": _one_resumes,
    "one without data": _one_has_no_data,
}


def _differ(make: Differ) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        rank_words = make(bench.stock, folder)
        words = train_words("coarse", bench.stock.recipe(), folder / "run", *TWO)
        ended = bench.program.run(*words, cwd=folder, ranks=2, rank_words=rank_words, limit=TOLD_SECONDS)
        problem = refusal_problem(ended)
        if problem is None and 0 in ended.codes:
            problem = f"one rank ends with 0: {ended.codes}"
        if problem is None and any(folder.glob("*/checkpoints/step-*")):
            problem = "a step was made"
        return Verdict(ended, problem)

    return attempt


def _dies(number: signal.Signals, rank: int) -> Callable[[Bench, Path], Verdict]:
    """A rank of `--nproc 2` is ended by a signal in the middle."""

    def attempt(bench: Bench, folder: Path) -> Verdict:
        run = folder / "run"
        words = train_words("coarse", bench.stock.recipe(), run, *LONG, *TWO)
        process = bench.program.start_process(*words, "--nproc", "2", cwd=folder)
        process.wait_until(lambda: (run / "checkpoints" / "latest").is_file())
        os.kill(process.children()[rank], number)
        killed = time.monotonic()
        ended = process.ended(killed - process.began + TRAINING_SECONDS)
        seconds = time.monotonic() - killed
        last = last_line(ended)
        problem = rough_end(ended)
        if problem is None and ended.code != 1:
            problem = f"exit {ended.code}: {last}"
        if problem is None and (number.name not in last or f"rank {rank}" not in last.lower()):
            problem = f"the last line does not name the rank and {number.name}: {last}"
        if problem is None and seconds > DEAD_SECONDS:
            problem = f"told after {seconds:.0f} s"
        return Verdict(ended, problem)

    return attempt


def _early(number: signal.Signals, seconds: float) -> Callable[[Bench, Path], Verdict]:
    """A signal during the start."""

    def attempt(bench: Bench, folder: Path) -> Verdict:
        words = train_words("coarse", bench.stock.recipe(), folder / "run")
        ended = bench.program.run_process(*words, cwd=folder, signals=[(seconds, number)])
        codes = (75, 130) if number == signal.SIGINT else (75,)
        problem = rough_end(ended)
        if problem is None and ended.code not in (*codes, 0):
            problem = f"exit {ended.code}, not {codes}: {last_line(ended)}"
        return Verdict(ended, problem)

    return attempt


def _saves(number: signal.Signals, ranks: int) -> Callable[[Bench, Path], Verdict]:
    """A signal in the middle, to the launcher where there is one: saved, and it goes on."""

    def attempt(bench: Bench, folder: Path) -> Verdict:
        run = folder / "run"
        words = train_words("coarse", bench.stock.recipe(), run, *LONG, *(TWO if ranks > 1 else ()))
        if ranks > 1:
            words += ["--nproc", str(ranks)]
        process = bench.program.start_process(*words, cwd=folder)
        process.wait_until(lambda: (run / "checkpoints" / "latest").is_file())
        process.popen.send_signal(number)
        ended = process.ended(TRAINING_SECONDS)
        problem = rough_end(ended)
        if problem is None and ended.code != 75:
            problem = f"exit {ended.code}: {last_line(ended)}"
        return Verdict(ended, problem)

    return attempt


#: What a shell has inside an allocation, without `srun`.
ALLOCATIONS = {
    "of salloc": {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "localhost"},
    "of sbatch": {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_JOB_NODELIST": "localhost",
    },
    "of a terminal that srun has opened": {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "4",
        "SLURM_STEP_NUM_TASKS": "1",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_JOB_NODELIST": "localhost",
    },
}


def _allocation(variables: dict[str, str]) -> Callable[[Bench, Path], Verdict]:
    """Trains alone, or says what it waits for."""

    def attempt(bench: Bench, folder: Path) -> Verdict:
        words = train_words("coarse", bench.stock.recipe(), folder / "run")
        ended = bench.program.run(*words, cwd=folder, limit=TOLD_SECONDS, **variables)
        if ended.timed_out and ended.said.strip():
            return Verdict(ended, None)
        return Verdict(ended, refusal_problem(ended) if ended.code > 0 else success_problem(ended))

    return attempt


def cases() -> list[Case]:
    """All of these."""
    made = []
    for what, make in DIFFERENCES.items():
        made.append(Case("ranks", 7, f"ranks differ in {what}", _differ(make)))
    for number, rank in ((signal.SIGKILL, 1), (signal.SIGSEGV, 0), (signal.SIGBUS, 1), (signal.SIGABRT, 1)):
        made.append(Case("ranks", 8, f"rank {rank} is ended by {number.name}", _dies(number, rank)))
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        made.append(Case("ranks", 8, f"{number.name} to one process saves", _saves(number, 1)))
    made.append(Case("ranks", 8, "SIGHUP to the launcher saves", _saves(signal.SIGHUP, 2)))
    for number, seconds in (
        *((signal.SIGTERM, 0.3), (signal.SIGTERM, 2.0), (signal.SIGHUP, 1.0)),
        *((signal.SIGUSR1, 1.5), (signal.SIGINT, 0.5), (signal.SIGINT, 2.5)),
    ):
        made.append(Case("ranks", 8, f"{number.name} after {seconds} s, during imports", _early(number, seconds)))
    for what, variables in ALLOCATIONS.items():
        made.append(Case("ranks", 8, f"the variables {what}, without srun", _allocation(variables)))
    return made
