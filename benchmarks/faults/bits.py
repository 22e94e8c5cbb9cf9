"""One flipped bit in every file of a checkpoint, and files that are cut, emptied, removed or another checkpoint's."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults import harm
from benchmarks.faults.bench import Bench, refusal_problem, rough_end, success_problem
from benchmarks.faults.kinds import Case, Verdict
from benchmarks.faults.program import TRAINING_SECONDS, Ended
from benchmarks.faults.stock import Stock, copy, train_words

STEP = Path("checkpoints", "step-000002")
#: The same step of a run that is not the same.
OTHER_STEP = Path("checkpoints", "step-000001")


@dataclass(frozen=True)
class Use:
    """What is done with a checkpoint. task: of the run; words: from the stock and the run; result: what the command
    made, to compare; reads: which of the checkpoint's files it must not take when they are damaged."""

    what: str
    task: str
    words: Callable[[Stock, Path, Path], Sequence[object]]
    result: Callable[[Ended, Path], Any]
    reads: tuple[str, ...]


def _printed(ended: Ended, folder: Path) -> str:
    return ended.out


def _last_weights(ended: Ended, folder: Path) -> str:
    return hashlib.sha256((folder / "run/checkpoints/step-000003/model.safetensors").read_bytes()).hexdigest()


def _scores(ended: Ended, folder: Path) -> Any:
    return json.loads((folder / "results" / "results.json").read_text())["metrics"]


USES = (
    Use(
        "resume",
        "coarse",
        lambda stock, run, folder: [*train_words("coarse", stock.recipe(), run, "optim.steps=3"), "--resume"],
        _last_weights,
        ("config.json", "state/"),
    ),
    Use(
        "caption",
        "caption",
        lambda stock, run, folder: ["caption", stock.pictures(), "--checkpoint", run],
        _printed,
        ("config.json", "model.safetensors", "tokenizer/"),
    ),
    Use(
        "detect",
        "fine",
        lambda stock, run, folder: [
            *("detect", stock.pictures(), "red star", "--threshold", "0", "--json", "--checkpoint", run)
        ],
        _printed,
        ("config.json", "model.safetensors", "tokenizer/"),
    ),
    Use(
        "eval",
        "coarse",
        lambda stock, run, folder: [
            *("eval", "scenes", "--limit", "4", "--workers", "0"),
            *("--output", folder / "results", "--checkpoint", run),
        ],
        _scores,
        ("config.json", "model.safetensors", "tokenizer/"),
    ),
    Use(
        "--init-from",
        "coarse",
        lambda stock, run, folder: [
            *train_words("coarse", stock.recipe(), folder / "run2", "optim.steps=1"),
            *("--init-from", run),
        ],
        lambda ended, folder: hashlib.sha256(
            (folder / "run2/checkpoints/step-000001/model.safetensors").read_bytes()
        ).hexdigest(),
        ("config.json", "model.safetensors"),
    ),
)

#: What is done to a whole file.
WHOLE_FILE: dict[str, harm.Way] = {
    "cut short": harm.cut,
    "emptied": harm.empty,
    "removed": harm.absent,
    "of zero bytes": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
}


class Results:
    """What the uses give with a checkpoint that is whole; each is made once."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def of(self, bench: Bench, use: Use) -> Any:
        if use.what not in self._made:
            folder = bench.new_folder()
            ended = bench.program.run(
                *use.words(bench.stock, run_to_harm(bench, use, folder), folder), cwd=folder, limit=TRAINING_SECONDS
            )
            problem = success_problem(ended)
            assert problem is None, f"{ended.command}\n{ended.said}"
            self._made[use.what] = use.result(ended, folder)
        return self._made[use.what]


def run_to_harm(bench: Bench, use: Use, folder: Path) -> Path:
    """A copy of the run that a use is made of."""
    if use.what != "resume":
        return copy(bench.stock.run(use.task), folder, "run")
    whole = bench.stock.folder / "three steps"
    if not whole.exists():
        words = train_words(use.task, bench.stock.recipe(), whole, "optim.steps=3")
        ended = bench.program.run(*words, cwd=bench.stock.folder, limit=TRAINING_SECONDS)
        assert success_problem(ended) is None, ended.said
    run = copy(whole, folder, "run")
    last = run / "checkpoints" / "step-000003"
    for path in sorted(last.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    last.rmdir()
    (run / "checkpoints" / "latest").write_text("step-000002\n")
    for name in ("summary.json", "curves.png"):
        (run / name).unlink(missing_ok=True)
    return run


def cases(bench: Bench, trials: int) -> list[Case]:
    """So many flipped bits of each file, for each use that reads it, and each harm to a whole file."""
    results = Results()
    made = []
    for use in USES:
        checkpoint = bench.stock.run(use.task) / STEP
        files = sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())
        for file in files:
            for number in range(trials):
                instance = f"{use.what}: bit {number + 1} of {trials} flipped in {file}"
                made.append(Case("bits", 4, instance, _attempt(use, file, _flip(use.what, file, number), results)))
            if file.startswith(use.reads):
                for name, way in WHOLE_FILE.items():
                    instance = f"{use.what}: {file} is {name}"
                    made.append(Case("bits", 4, instance, _attempt(use, file, _whole(way), results)))
                instance = f"{use.what}: {file} is that of another checkpoint"
                made.append(Case("bits", 4, instance, _attempt(use, file, _exchange(use.task), results)))
    return made


#: Harms the file of a run's checkpoint.
Harm = Callable[[Bench, Path, str], object]


def _flip(use: str, file: str, number: int) -> Harm:
    def flip(bench: Bench, run: Path, name: str) -> None:
        path = run / STEP / name
        content = bytearray(path.read_bytes())
        draw = bench.draw(use, file, number)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)

    return flip


def _whole(way: harm.Way) -> Harm:
    return lambda bench, run, name: way(run / STEP / name)


def _exchange(task: str) -> Harm:
    def exchange(bench: Bench, run: Path, name: str) -> None:
        other = bench.stock.run(task) / OTHER_STEP / name
        (run / STEP / name).write_bytes(other.read_bytes())

    return exchange


def _attempt(use: Use, file: str, harm_file: Harm, results: Results) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        whole = results.of(bench, use)
        run = run_to_harm(bench, use, folder)
        before = (run / STEP / file).read_bytes()
        harm_file(bench, run, file)
        changed = not (run / STEP / file).exists() or (run / STEP / file).read_bytes() != before
        ended = bench.program.run(*use.words(bench.stock, run, folder), cwd=folder, limit=TRAINING_SECONDS)
        if ended.code == 0:
            problem = rough_end(ended)
            if problem is None and use.result(ended, folder) != whole:
                problem = "taken: the result is another, with exit 0"
            if problem is None and changed and file.startswith(use.reads) and (run / STEP / file).exists():
                problem = "taken without a word: the result is the same"
            return Verdict(ended, problem)
        # Without its config.json a folder is no checkpoint.
        named = Path(file).name if (run / STEP / "config.json").exists() else STEP.name
        return Verdict(ended, refusal_problem(ended, named, codes=(1,)))

    return attempt
