"""One run, one folder: two at once, starts that fail, files of the user, and folders that vanish."""

import shutil
import socket
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from benchmarks.faults.bench import Bench, content, last_line, refusal_problem, success_problem, temporary_files
from benchmarks.faults.kinds import Case, Verdict
from benchmarks.faults.outputs import harmed
from benchmarks.faults.program import TRAINING_SECONDS, Process
from benchmarks.faults.stock import copy, train_words

#: Of a run that is still there while something is done.
LONG = ("optim.steps=100000", "log.save_every=5", "log.keep_last=1")
#: Within so many seconds the loss of a folder must be told.
TOLD_SECONDS = 60.0
MINE = "# mine\n"


def begun(bench: Bench, run: Path, *settings: str) -> Process:
    """A long run in a process of its own that has written its first checkpoint."""
    words = train_words("coarse", bench.stock.recipe(), run, *LONG, *settings)
    process = bench.program.start_process(*words, cwd=run.parent)
    process.wait_until(lambda: (run / "checkpoints" / "latest").is_file())
    return process


# Two at once


def _second(how: str) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        run = folder / "run"
        ranks = 2 if how == "with two ranks" else 1
        batch = f"runtime.micro_batch={4 // ranks}"
        first = begun(bench, run, batch)
        target = run
        if how == "through a link":
            target = folder / "link"
            target.symlink_to(run)
        words = train_words("coarse", bench.stock.recipe(), target, *LONG, batch)
        if how != "from the start":
            words.append("--resume")
        try:
            ended = bench.program.run(*words, cwd=folder, ranks=ranks, limit=60)
            named = () if how == "from the start" else (str(first.popen.pid), socket.gethostname())
            problem = refusal_problem(ended, *named, codes=(1,))
            if problem is None and first.popen.poll() is not None:
                problem = "the first run has ended by it"
        finally:
            first.popen.kill()
            first.ended(10)
        return Verdict(ended, problem)

    return attempt


def _after_a_kill(bench: Bench, folder: Path) -> Verdict:
    """A lock must not outlive its process."""
    run = folder / "run"
    first = begun(bench, run)
    first.popen.kill()
    first.ended(10)
    steps = int((run / "checkpoints" / "latest").read_text().strip().removeprefix("step-"))
    words = train_words("coarse", bench.stock.recipe(), run, *LONG)
    ended = bench.program.run(*words, "--resume", cwd=folder, limit=20 + steps / 50, signals=[(15, 15, None)])
    if ended.code == 75:
        return Verdict(ended, None)
    return Verdict(ended, f"exit {ended.code}: {last_line(ended)}")


# Starts that fail

#: What fails → settings put over the recipe.
FAILING_STARTS = {
    "shards that are not there": "data.train=[{kind: webdataset, shards: /nowhere/*.tar}]",
    "a JSON that is not there": "data.train=[{kind: karpathy, json: /nowhere.json, images: /nowhere}]",
    "a tokeniser that is not there": "model.tokenizer=/nowhere",
    "image weights that are not there": "model.swin=/nowhere.pth",
    "more samples than there are": "runtime.global_batch=400",
    "validation data that are not there": "data.val=[{kind: karpathy, json: /nowhere.json, images: /nowhere}]",
}
if find_spec("wandb") is None:
    FAILING_STARTS["a package that is not installed"] = "log.wandb=mine"


def _failed_start(setting: str) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        words = train_words("coarse", bench.stock.recipe(), folder / "run")
        first = bench.program.run(*words, setting, "log.validate_every=1", cwd=folder)
        problem = refusal_problem(first)
        if problem:
            return Verdict(first, f"first: {problem}")
        ended = bench.program.run(*words, cwd=folder, limit=TRAINING_SECONDS)
        return Verdict(ended, success_problem(ended))

    return attempt


def _failed_init(bench: Bench, folder: Path) -> Verdict:
    """Weights of --init-from that are damaged, then right ones."""
    damaged = copy(bench.stock.run("coarse"), folder, "damaged")
    for file in damaged.rglob("model.safetensors"):
        file.write_bytes(b"")
    words = train_words("coarse", bench.stock.recipe(), folder / "run")
    first = bench.program.run(*words, "--init-from", damaged, cwd=folder)
    problem = refusal_problem(first)
    if problem:
        return Verdict(first, f"first: {problem}")
    ended = bench.program.run(*words, cwd=folder, limit=TRAINING_SECONDS)
    return Verdict(ended, success_problem(ended))


# The user's files


def _users_file_stays(name: str, text: str) -> Callable[[Bench, Path], Verdict]:
    """A folder with a file that is no run's, given as --output with --resume: what it holds stays, whether the run is
    refused or starts afresh."""

    def attempt(bench: Bench, folder: Path) -> Verdict:
        run = folder / "run"
        run.mkdir()
        (run / name).write_text(text)
        before = content(folder)
        words = train_words("coarse", bench.stock.recipe(), run)
        ended = bench.program.run(*words, "--resume", cwd=folder, limit=TRAINING_SECONDS)
        problem = harmed(folder, before)
        if problem is None and ended.code:
            problem = refusal_problem(ended)
        return Verdict(ended, problem)

    return attempt


def _notes_stay(bench: Bench, folder: Path) -> Verdict:
    """What a user has put beside the files of a run."""
    run = copy(bench.stock.run("coarse"), folder, "run")
    for name in ("notes.txt", "checkpoints/notes.txt", "checkpoints/step-000002/README.md"):
        (run / name).write_text(MINE)
    before = {name: data for name, data in content(folder).items() if data == MINE.encode()}
    words = train_words("coarse", bench.stock.recipe(), run)
    ended = bench.program.run(*words, "--resume", cwd=folder, limit=TRAINING_SECONDS)
    problem = harmed(folder, before)
    if problem is None:
        problem = refusal_problem(ended) if ended.code else None
    return Verdict(ended, problem)


def _recipe_of_the_run(bench: Bench, folder: Path) -> Verdict:
    """The run's own recipe.yaml, with a user's comment, given as --recipe."""
    run = copy(bench.stock.run("coarse"), folder, "run")
    file = run / "recipe.yaml"
    file.write_text(MINE + file.read_text())
    before = file.read_bytes()
    ended = bench.program.run(
        "pretrain", "coarse", "--recipe", file, "--output", run, "--resume", cwd=folder, limit=TRAINING_SECONDS
    )
    problem = success_problem(ended)
    if problem is None and file.read_bytes() != before:
        problem = "recipe.yaml, which was given as --recipe, is rewritten"
    return Verdict(ended, problem)


# Folders that vanish


def removed(run: Path) -> None:
    shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(run, ignore_errors=True)  # what was written meanwhile


def renamed(run: Path) -> None:
    run.rename(run.with_name("elsewhere"))


def checkpoints_removed(run: Path) -> None:
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)


def replaced_by_a_file(run: Path) -> None:
    renamed(run)
    run.write_text(MINE)


def replaced_by_another(run: Path) -> None:
    renamed(run)
    run.mkdir()


def _vanished(change: Callable[[Path], object]) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        run = folder / "run"
        process = begun(bench, run)
        change(run)
        ended = process.ended(process_age(process) + TOLD_SECONDS)
        problem = refusal_problem(ended, "run", codes=(1,))
        if problem is None:
            left = [name for name in temporary_files(folder) if name.startswith("run")]
            problem = f"leaves {left[0]}" if left else None
        return Verdict(ended, problem)

    return attempt


def process_age(process: Process) -> float:

    return time.monotonic() - process.began


def cases() -> list[Case]:
    """All of these."""
    made = []
    for how in ("from the start", "with --resume", "through a link", "with two ranks"):
        made.append(Case("folders", 3, f"a second run in the folder, {how}", _second(how)))
    made.append(Case("folders", 3, "--resume at once after the first was killed", _after_a_kill))
    for what, setting in FAILING_STARTS.items():
        made.append(Case("folders", 3, f"a start that failed by {what}, then a good one", _failed_start(setting)))
    made.append(Case("folders", 3, "a start that failed by damaged weights, then a good one", _failed_init))
    for name, text in (
        ("recipe.yaml", "# my own notes\nmodel: {preset: tiny}\n"),
        ("metrics.jsonl", "my numbers\n"),
        ("init_from", "my words\n"),
        ("summary.json", "{}"),
        ("curves.png", "my picture"),
    ):
        instance = f"--resume in a folder with a user's {name}"
        made.append(Case("folders", 3, instance, _users_file_stays(name, text)))
    made.append(Case("folders", 3, "--resume beside a user's notes", _notes_stay))
    made.append(Case("folders", 3, "--resume by the run's own recipe with a comment", _recipe_of_the_run))
    for change in (removed, renamed, checkpoints_removed, replaced_by_a_file, replaced_by_another):
        what = change.__name__.replace("_", " ")
        made.append(Case("folders", 9, f"the output folder is {what} in the middle", _vanished(change)))
    return made
