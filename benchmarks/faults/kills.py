"""Runs that are killed at random moments, go on, and must end bit for bit where the uninterrupted run ends."""

import json
import random
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import Bench, last_line, success_problem, temporary_files
from benchmarks.faults.kinds import Case, Verdict
from benchmarks.faults.program import TRAINING_SECONDS, Ended
from benchmarks.faults.stock import Stock, train_words

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
#: Kills of one run before it is left to end.
KILLS = 2
STEPS = 8
SHORT = (f"optim.steps={STEPS}", "log.save_every=3", "log.keep_last=2")
#: What a run logs that must be the same, to the last bit.
EXACT = ("loss", "itc_loss", "itm_loss", "mlm_loss", "token_loss", "reg_loss", "centerness_loss", "lr", "grad_norm")
#: Exit codes of a run that a signal ended: saved; interrupted; and as the system or a shell tells it, where it came
#: before the program could take it.
STOPPED = (0, 75, 130)


@dataclass(frozen=True)
class Training:
    """A way to train. settings: put over the recipe, from the stock; ranks: processes as under torchrun; launched: the
    program starts its two ranks itself, and the signal goes to it."""

    what: str
    task: str
    settings: Callable[[Stock], tuple[str, ...]]
    ranks: int = 1
    launched: bool = False


def _plain(*settings: str) -> Callable[[Stock], tuple[str, ...]]:
    return lambda stock: settings


TRAININGS = (
    Training(
        "map data",
        "coarse",
        lambda stock: (f"data.train=[{{kind: karpathy, json: {stock.karpathy()}, images: {stock.pictures()}}}]",),
    ),
    Training("tar shards", "coarse", lambda stock: (f"data.train=[{{kind: webdataset, shards: {stock.shards()}}}]",)),
    Training("two ranks", "coarse", _plain("runtime.micro_batch=2"), ranks=2),
    Training("two ranks that --nproc starts", "coarse", _plain("runtime.micro_batch=2"), launched=True),
    Training("a detector", "fine", _plain()),
    Training("ZeRO 3 on two ranks", "coarse", _plain("runtime.micro_batch=2", "runtime.zero_stage=3"), ranks=2),
    Training("several workers", "coarse", _plain("data.workers=2")),
    Training(
        "several workers on shards",
        "coarse",
        lambda stock: ("data.workers=2", f"data.train=[{{kind: webdataset, shards: {stock.shards()}}}]"),
    ),
    Training(
        "accumulation and an average of the weights", "coarse", _plain("runtime.micro_batch=2", "runtime.ema=0.9")
    ),
    Training("captions", "caption", _plain()),
)


class Reference:
    """The uninterrupted run: its seconds, its weights and what it logged."""

    def __init__(self, bench: Bench, training: Training):
        folder = bench.new_folder() / "run"
        ended = train(bench, training, folder)
        problem = success_problem(ended)
        assert problem is None, f"{ended.command}\n{ended.said}"
        self.seconds = ended.seconds
        self.weights = weights(folder)
        self.log = logged(folder)


def cases(trials: int) -> list[Case]:
    """So many interrupted runs of each way to train."""
    references: dict[str, Reference] = {}
    made = []
    for number in range(trials):
        for training in TRAININGS:
            made.append(Case("kills", 8, f"{training.what}, run {number}", _attempt(training, number, references)))
    return made


def _attempt(training: Training, number: int, references: dict[str, Reference]) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        if training.what not in references:
            references[training.what] = Reference(bench, training)
        reference = references[training.what]
        draw = bench.draw(training.what, number)
        run = folder / "run"
        for kill in range(KILLS):
            ended = train(bench, training, run, resume=kill > 0, kill=drawn_kill(draw, training, reference.seconds))
            problem = stop_problem(ended, training)
            if problem:
                return Verdict(ended, f"kill {kill + 1}: {problem}")
            if ended.code == 0:
                break
        ended = train(bench, training, run, resume=True)
        problem = success_problem(ended)
        return Verdict(ended, f"resumed: {problem}" if problem else end_problem(run, reference))

    return attempt


def drawn_kill(draw: random.Random, training: Training, seconds: float) -> tuple[float, int, int | None]:
    """A moment, a signal, and the rank that gets it, None for all. One rank alone is only killed: what stops a run goes
    to all of them, as schedulers do."""
    number = draw.choice(SIGNALS)
    rank = draw.randrange(training.ranks) if number == signal.SIGKILL and training.ranks > 1 else None
    return draw.uniform(0.1, 0.95) * seconds, number, rank


def train(
    bench: Bench,
    training: Training,
    folder: Path,
    *,
    resume: bool = False,
    kill: tuple[float, int, int | None] | None = None,
) -> Ended:
    """One start of the run in `folder`."""
    settings = training.settings(bench.stock)
    words = train_words(training.task, bench.stock.recipe(), folder, *SHORT, *settings)
    if resume:
        words.append("--resume")
    if training.launched:
        signals = [kill[:2]] if kill else []
        return bench.program.run_process(*words, "--nproc", "2", cwd=folder.parent, signals=signals)
    return bench.program.run(
        *words, cwd=folder.parent, limit=TRAINING_SECONDS, ranks=training.ranks, signals=[kill] if kill else []
    )


def stop_problem(ended: Ended, training: Training) -> str | None:
    """What is wrong with the end of a run that got a signal: a hang, or a code that is none of the documented ones. A
    rank whose neighbour was killed fails by itself."""
    if ended.timed_out:
        return f"hangs: {last_line(ended)}"
    allowed = {*STOPPED, *(-number for number in SIGNALS), *(128 + number for number in SIGNALS)}
    if any(code == -signal.SIGKILL for code in ended.codes):
        allowed.add(1)
    wrong = [code for code in ended.codes if code not in allowed]
    return f"exit {wrong[0]}: {last_line(ended)}" if wrong else None


def end_problem(run: Path, reference: Reference) -> str | None:
    """How the end of an interrupted run differs from that of the uninterrupted one."""
    if weights(run) != reference.weights:
        return "the last weights differ from those of the uninterrupted run"
    log = logged(run)
    if log.keys() != reference.log.keys():
        return f"logged are the steps {sorted(log)}, not {sorted(reference.log)}"
    for step, record in reference.log.items():
        if log[step] != record:
            return f"what is logged of step {step} differs: {log[step]}, not {record}"
    left = temporary_files(run)
    return f"leaves {', '.join(left[:3])}" if left else None


def weights(run: Path) -> bytes:
    """Of the last step."""
    return (run / "checkpoints" / f"step-{STEPS:06d}" / "model.safetensors").read_bytes()


def logged(run: Path) -> Mapping[int, dict[str, Any]]:
    """Step → the losses that were logged of it, by the last record of the step."""
    records = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "loss" in record:
            records[record["step"]] = {name: record[name] for name in EXACT if name in record}
    return records
