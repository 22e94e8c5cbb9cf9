"""Where trials are made, and what they have in common: a folder each, the stock, and the rule for a refusal."""

import random
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.program import Ended, Program
from benchmarks.faults.stock import Stock

#: Lines that a refusal may have: its own, and what was said before about the choice of a checkpoint.
MOST_LINES = 12
MOST_CHARACTERS = 20_000
#: Lines about something else: the steps before, what a run compares, and warnings of libraries, of every rank.
BESIDE = re.compile(r"step \d|ITC contrasts|resumed at|.*Warning: |\s+return func")
#: Words of those who ask whether code may be executed.
OFFERS = ("[y/N]", "trust_remote_code")
#: The file by which one command has a folder for itself; it stays, the lock on it ends with the process.
LOCK = ".fiber-lock"
#: Where what was found out about files of data is kept.
CACHE = ".fiber-cache"
#: How names of files end that are written and not yet whole.
TEMPORARY_ENDS = (".tmp", ".part", ".partial", ".temp", "~")


class Bench:
    """folder: of all trials; program, stock: shared by them; seed: of all that is drawn."""

    def __init__(self, folder: Path, program: Program, seed: int = 0):
        self.folder = folder
        self.program = program
        self.stock = Stock(folder / "stock", program)
        self.seed = seed
        self._number = 0

    def new_folder(self) -> Path:
        """An empty folder for a trial."""
        self._number += 1
        folder = self.folder / "trials" / f"{self._number:05d}"
        folder.mkdir(parents=True)
        return folder

    def draw(self, *of: object) -> random.Random:
        """Chance that is a function of the seed and of what it is for."""
        return random.Random(f"{self.seed} {of}")


@contextmanager
def bench(folder: Path, seed: int = 0) -> Iterator[Bench]:
    """A bench in an empty folder, with a program of its own."""
    with Program(folder / "home") as program:
        yield Bench(folder, program, seed)


def refusal_problem(ended: Ended, *names: str, codes: Iterable[int] = (1, 2)) -> str | None:
    """What is wrong with the way in which a command refused its input, None where nothing is: an exit code of `codes`,
    few lines with one of fiber's own, no traceback, and all of `names` in it."""
    problem = rough_end(ended)
    if problem:
        return problem
    if ended.code == 0:
        return "exit 0: taken as good"
    if ended.code not in codes:
        return f"exit {ended.code}: {last_line(ended)}"
    lines = [line for line in ended.err.splitlines() if line.strip() and not BESIDE.match(line)]
    if not any(line.startswith(("fiber: ", "Error", "Usage: ")) for line in lines):
        return f"no line of fiber's own: {last_line(ended)!r}"
    if len(lines) > MOST_LINES or len(ended.err) > MOST_CHARACTERS:
        return f"{len(lines)} lines, {len(ended.err)} characters"
    missing = [name for name in names if name not in ended.said]
    if missing:
        return f"does not name {', '.join(missing)}: {last_line(ended)}"
    return None


def rough_end(ended: Ended) -> str | None:
    """A hang, a traceback, or the end by a signal that nobody sent."""
    if ended.timed_out:
        return f"hangs: killed after {ended.seconds:.0f} s; {last_line(ended)}"
    if "Traceback (most recent call last)" in ended.said:
        return f"traceback: {last_line(ended)}"
    fatal = [code for code in ended.codes if code < 0]
    if fatal:
        return f"ended by {signal.Signals(-fatal[0]).name}: {last_line(ended)}"
    return None


def judged(ended: Ended, folder: Path, before: set[str], *named: str, is_either: bool = False) -> str | None:
    """A refusal that names what it must and leaves nothing behind but a training's own folder, `out`."""
    if (folder / "executed").exists():
        return "code of a file was executed"
    if any(word in ended.said for word in OFFERS):
        return "code of a file was offered"
    if is_either and ended.code == 0:
        return rough_end(ended)
    problem = refusal_problem(ended, *named)
    if problem is None:
        problem = stray_problem(ended, folder, before)
    return problem


def stray_problem(ended: Ended, folder: Path, before: set[str]) -> str | None:
    """What a refused command left, but for the folder of a training, the locks of folders, and what is kept of files of
    data that could be read."""
    new = sorted(tree(folder) - before)
    allowed = ("out", "run") if ended.argv[0] in ("pretrain", "finetune", "odinw", "few-shot") else ()
    stray = []
    for path in new:
        name = Path(path).name
        is_kept = name == LOCK or CACHE in Path(path).parts or path.startswith(allowed)
        if is_temporary(name) or not is_kept:
            stray.append(path)
    return f"leaves {', '.join(stray[:5])}" if stray else None


def success_problem(ended: Ended) -> str | None:
    """What is wrong with a command that should have succeeded."""
    problem = rough_end(ended)
    if problem is None and any(ended.codes):
        problem = f"exit {ended.code}: {last_line(ended)}"
    return problem


def last_line(ended: Ended) -> str:
    """The last thing said, shortened."""
    lines = [line for line in ended.said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing said"


def tree(folder: Path) -> set[str]:
    """Everything below a folder, links not followed, by its path from there."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def temporary_files(folder: Path) -> list[str]:
    """What below a folder has the name of something that is not whole."""
    return sorted(path for path in tree(folder) if is_temporary(Path(path).name))


def is_temporary(name: str) -> bool:
    return name.endswith(TEMPORARY_ENDS) or ".tmp" in name


def content(folder: Path) -> dict[str, bytes]:
    """File → bytes, of all regular files below a folder."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            files[str(path.relative_to(folder))] = path.read_bytes()
    return files
