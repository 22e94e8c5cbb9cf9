"""Seconds of processor time of whole commands on one picture, most of which is start-up, before and now.

    python -m benchmarks.startup                           # the checkpoints that ship, now
    python -m benchmarks.startup --before 72a87ff          # beside an earlier commit, in one run
    python -m benchmarks.startup --before 72a87ff --base   # also loading a checkpoint of `base`, 1 GB

Each command runs in a process of its own with one thread, in turns before and now, and the least of its times counts:
whatever else the machine does only adds to them. The earlier commit is checked out into a temporary folder. Bytecode is
kept in a temporary folder too and written by a first run, which does not count.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from benchmarks.common import write
from fiber_cli.distributed.device import processor_name

ROOT = Path(__file__).parents[1]
MATCH = """
from fiber_cli import Fiber
print(Fiber.from_pretrained("builtin/retrieval").match("pictures/images/000004.png", ["a star", "a ring"]))
"""
LOAD = """
import sys
from fiber_cli import Fiber
print(Fiber.from_pretrained(sys.argv[1], device="cpu").loaded.name)
"""
PICTURE = "pictures/images/000003.png"
FIBER = ("-m", "fiber_cli")
#: What is timed, by name: what Python is given.
COMMANDS = {
    "import torch": ("-c", "import torch"),
    "fiber --help": (*FIBER, "--help"),
    "fiber detect": (*FIBER, "detect", PICTURE, "purple heart . yellow heart", "--out", "found", "--force"),
    "fiber caption": (*FIBER, "caption", PICTURE),
    "fiber answer": (*FIBER, "answer", PICTURE, "what colour is the star?"),
    "fiber rerank": (*FIBER, "rerank", "--images", "few", "--query", "a yellow star"),
    "Fiber.match": ("-c", MATCH),
}
#: Of these the first has no checkpoint to name.
WITH_CHECKPOINT = ("fiber detect", "fiber caption", "fiber answer", "fiber rerank")


def cpu_seconds(words: Sequence[str], code: Path, folder: Path) -> float:
    """Of a Python process with these words, user and system, that takes fiber from `code`."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen([sys.executable, *words], cwd=folder, env=env, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{' '.join(words)} with {code} ended with {process.returncode}: {log.read()}")
    return usage.ru_utime + usage.ru_stime


@contextmanager
def checked_out(commit: str | None) -> Iterator[Path | None]:
    """A folder with an earlier commit; None for none."""
    if commit is None:
        yield None
        return
    git = ("git", "-C", str(ROOT), "worktree")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "before"
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def save_base(folder: Path, preset: str = "base") -> Path:
    """A checkpoint of the coarse stage, of random weights, that earlier versions read too: it names no setting of the
    task."""
    from fiber_cli.checkpoints.config import CheckpointConfig
    from fiber_cli.checkpoints.loading import new_task
    from fiber_cli.checkpoints.saving import save
    from fiber_cli.checkpoints.weights import named_weights
    from fiber_cli.data.text import load_tokenizer
    from fiber_cli.model.config import PRESETS
    from fiber_cli.tasks.coarse.settings import CoarseSettings
    from fiber_cli.tasks.context import TaskContext

    tokenizer = load_tokenizer("builtin")
    config = CheckpointConfig(PRESETS[preset], CoarseSettings("coarse"), 40, None, "builtin")
    task = new_task(TaskContext(config.task, config.model, tokenizer, config.text_length))
    content = config.to_json() | {"task": {"name": "coarse"}}
    return save(folder, 1, config=content, weights=named_weights(task), tokenizer=tokenizer)


def timed_commands(
    commands: Mapping[str, Sequence[str]], codes: Mapping[str, Path], folder: Path, repeats: int
) -> dict[str, dict[str, float]]:
    """The least seconds of each command with each code."""
    seconds: dict[str, dict[str, float]] = {}
    for name, words in commands.items():
        times: dict[str, list[float]] = {label: [] for label in codes}
        for number in range(repeats + 1):
            for label, code in codes.items():
                taken = cpu_seconds(words, code, folder)
                if number:
                    times[label].append(taken)
        seconds[name] = {label: min(of_code) for label, of_code in times.items()}
        print(f"{name:16}" + "".join(f"{label} {least:6.2f} s   " for label, least in seconds[name].items()))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="COMMIT", help="an earlier commit to compare with")
    parser.add_argument("--base", action="store_true", help="also load a checkpoint of base, which is made for it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=COMMANDS, action="append", help="this command alone; may be given again")
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the earlier commit's folder goes
    commands: dict[str, Sequence[str]] = {}
    for name, words in COMMANDS.items():
        if args.only and name not in args.only:
            continue
        commands[name] = (*words, "--checkpoint", "builtin") if name in WITH_CHECKPOINT else words
    with checked_out(args.before) as before, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        codes = {"now": ROOT} if before is None else {"before": before, "now": ROOT}
        cpu_seconds((*FIBER, "scenes", "--out", "pictures"), ROOT, folder)
        (folder / "few").mkdir()
        for number in range(5):
            (folder / f"pictures/images/{number:06}.png").rename(folder / f"few/{number:06}.png")
        for number in range(5):
            (folder / f"pictures/images/{number:06}.png").symlink_to(folder / f"few/{number:06}.png")
        if args.base:
            commands["load base"] = ("-c", LOAD, str(save_base(folder)))
        print("processor time of a process, one thread, least of", args.repeats)
        seconds = timed_commands(commands, codes, folder, args.repeats)
    report = {
        "command": f"python -m benchmarks.startup {' '.join(sys.argv[1:])}".strip(),
        "cpu": processor_name(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "before": args.before,
        "repeats": args.repeats,
        "seconds": seconds,
    }
    write(report, args.json)


if __name__ == "__main__":
    main()
