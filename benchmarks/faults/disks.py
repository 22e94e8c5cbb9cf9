"""Full disks: every command that writes, at ten sizes of the free space.

What is free is a share of what the command leaves when there is room. It must end in one line, leave nothing that is
not whole, and work, or go on, once there is room.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import is_temporary, refusal_problem, rough_end, success_problem
from benchmarks.faults.full_disk import Disk
from benchmarks.faults.kinds import Trial
from benchmarks.faults.program import TRAINING_SECONDS, Ended
from benchmarks.faults.stock import Stock, train_words

#: Shares of what the command leaves that are free.
SHARES = (0.0, 0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.98)
#: Files that may differ from those of a run without interruption: they hold times, or say how it was started.
VARYING = ("curves.png", "recipe.yaml", "init_from", ".fiber-outputs", "SHA256SUMS")


@dataclass(frozen=True)
class Writing:
    """A command that writes onto the disk. words: from the stock and the folder on the disk; again: added when it is
    given again; ranks: processes; printed: a file on the disk for standard output; variables: of the environment, from
    the folder; may_succeed: without any room too."""

    what: str
    words: Callable[[Stock, Path], Sequence[object]]
    again: tuple[str, ...] = ()
    ranks: int = 1
    printed: str | None = None
    variables: Callable[[Path], Mapping[str, str]] = field(default=lambda folder: {})
    may_succeed: bool = False

    @property
    def trains(self) -> bool:
        return bool(self.again)


def _train(*settings: str, task: str = "coarse") -> Callable[[Stock, Path], Sequence[object]]:
    return lambda stock, disk: train_words(task, stock.recipe(), disk / "run", *settings)


WRITINGS = (
    Writing("training on one rank", _train(), again=("--resume",)),
    Writing("training on two ranks", _train("runtime.micro_batch=2"), again=("--resume",), ranks=2),
    Writing(
        "training by ZeRO 3 on two ranks",
        _train("runtime.micro_batch=2", "runtime.zero_stage=3"),
        again=("--resume",),
        ranks=2,
    ),
    Writing("training a detector", _train(task="fine"), again=("--resume",)),
    Writing(
        "detect --coco",
        lambda stock, disk: [
            *("detect", stock.pictures(), "cat . dog", "--threshold", "0", "--coco", disk / "found.json"),
            *("--checkpoint", stock.run("fine")),
        ],
    ),
    Writing(
        "detect --out",
        lambda stock, disk: [
            *("detect", stock.pictures(), "cat . dog", "--threshold", "0", "--out", disk / "out"),
            *("--checkpoint", stock.run("fine")),
        ],
    ),
    Writing(
        "detect --json into a file",
        lambda stock, disk: [
            *("detect", stock.pictures(), "cat . dog", "--threshold", "0", "--json"),
            *("--checkpoint", stock.run("fine")),
        ],
        printed="found.txt",
    ),
    Writing(
        "recipes schema into a file",
        lambda stock, disk: ["recipes", "schema"],
        printed="schema.md",
    ),
    Writing(
        "rerank with an index and a sheet",
        lambda stock, disk: [
            *("rerank", "--images", stock.pictures(), "--query", "a star", "--workers", "0"),
            *("--index", disk / "index.safetensors", "--sheet", disk / "sheet.png"),
            *("--checkpoint", stock.run("coarse")),
        ],
    ),
    Writing(
        "eval of retrieval",
        lambda stock, disk: [
            *("eval", "scenes", "--limit", "4", "--mode", "itc+itm", "--workers", "0"),
            *("--output", disk / "results", "--checkpoint", stock.run("coarse")),
        ],
    ),
    Writing(
        "eval of detection",
        lambda stock, disk: [
            *("eval", stock.coco(), "--images", stock.pictures(), "--workers", "0"),
            *("--output", disk / "results", "--checkpoint", stock.run("fine")),
        ],
    ),
    Writing(
        "eval with its text stems on the disk",
        lambda stock, disk: [
            *("eval", "scenes", "--limit", "40", "--mode", "itm", "--workers", "0", "--stem-memory", "0"),
            *("--output", disk / "results", "--checkpoint", stock.run("coarse")),
        ],
        variables=lambda disk: {"TMPDIR": str(disk)},
    ),
    Writing(
        "eval of shards with their index on the disk",
        lambda stock, disk: [
            *("eval", stock.shards(), "--workers", "0", "--output", disk / "results"),
            *("--checkpoint", stock.run("coarse")),
        ],
        variables=lambda disk: {"FIBER_CACHE": str(disk / "cache")},
        may_succeed=True,
    ),
    Writing(
        "vqa-answers",
        lambda stock, disk: [
            "vqa-answers", stock.many_answers(), "--minimum", "1", "--output", disk / "answers.json"
        ],
    ),
    Writing(
        "cider-df",
        lambda stock, disk: [
            *("cider-df", "--recipe", stock.recipe(), "--output", disk / "df.json"),
            f"data.train=[{{kind: karpathy, json: {stock.many_captions()}, images: {stock.pictures()}}}]",
        ],
    ),
    Writing(
        "convert",
        lambda stock, disk: ["convert", stock.published(), disk / "out", "--tokenizer", "builtin"],
    ),
)  # fmt: skip


class Disks:
    """The trials of one disk, whose program makes the stock too."""

    def __init__(self, disk: Disk):
        self.disk = disk
        self.stock = Stock(disk.folder.parent / "stock", disk.program)
        self._whole: dict[str, tuple[int, dict[str, str]]] = {}

    def trial(self, writing: Writing, share: float) -> Trial:
        """One command at one size of the free space."""
        need, whole = self.whole(writing)
        self.clear()
        free = int(share * need)
        self.disk.leave(free)
        ended = self.run(writing)
        problem = self.problem_when_full(writing, ended, whole)
        if free == 0 and ended.code == 0 and not writing.may_succeed:
            problem = "exit 0 without any room"
        self.disk.make_room()
        if problem is None:
            problem = self.problem_with_room(writing, whole)
        shown = ended.command.replace(str(self.disk.folder), "DISK").replace(str(self.stock.folder), "STOCK")
        instance = f"{writing.what}, {share:.0%} of {need:,} bytes free"
        return Trial("disks", 2, instance, shown, problem, ended.seconds)

    def whole(self, writing: Writing) -> tuple[int, dict[str, str]]:
        """What the command leaves where there is room: bytes and marks."""
        if writing.what not in self._whole:
            self.clear()
            ended = self.run(writing)
            assert success_problem(ended) is None, f"{ended.command}\n{ended.said}"
            self._whole[writing.what] = (self.call("used"), self.call("marks"))
        return self._whole[writing.what]

    def problem_when_full(self, writing: Writing, ended: Ended, whole: Mapping[str, str]) -> str | None:
        marks = self.call("marks")
        if ended.code == 0:
            # Its last bytes may have fitted into a page.
            return rough_end(ended) or difference(marks, whole)
        problem = refusal_problem(ended, codes=(1,))
        if problem:
            return f"full: {problem}"
        left = sorted(path for path in marks if is_temporary(Path(path).name))
        if left:
            return f"leaves {', '.join(left[:3])}"
        for path, mark in marks.items():
            # A checkpoint that stays is held against its own digests when the run goes on.
            is_compared = path != writing.printed and not is_varying(path)
            if mark == "no JSON" and is_compared:
                return f"leaves {path} half-written"
            if mark != whole.get(path, mark) and is_compared and Path(path).name not in ("latest", "metrics.jsonl"):
                return f"leaves {path} half-written"
        return None

    def problem_with_room(self, writing: Writing, whole: Mapping[str, str]) -> str | None:
        if writing.printed:
            (self.disk.program).call("full_disk:clear", str(self.disk.folder))
        ended = self.run(writing, *writing.again)
        problem = success_problem(ended)
        if problem:
            return f"again, with room: {problem}"
        return difference(self.call("marks"), whole)

    def run(self, writing: Writing, *again: str) -> Ended:
        folder = self.disk.folder
        return self.disk.program.run(
            *writing.words(self.stock, folder),
            *again,
            cwd=self.stock.folder,
            limit=TRAINING_SECONDS,
            ranks=writing.ranks,
            stdout=folder / writing.printed if writing.printed else None,
            **writing.variables(folder),
        )

    def clear(self) -> None:
        self.disk.make_room()
        self.call("clear")

    def call(self, function: str) -> Any:
        return self.disk.program.call(f"full_disk:{function}", str(self.disk.folder))


def difference(marks: Mapping[str, str], whole: Mapping[str, str]) -> str | None:
    """The first way in which what is there differs from what should be."""
    for path, mark in whole.items():
        if path not in marks:
            return f"{path} is missing in the end"
        if mark != marks[path] and not is_varying(path):
            return f"{path} differs in the end"
    temporary = [path for path in marks if is_temporary(Path(path).name)]
    return f"{temporary[0]} is there in the end" if temporary else None


def is_varying(path: str) -> bool:
    """The engine's own files hold times in their archives; bit for bit are the weights."""
    return Path(path).name in VARYING or "/state/" in path or path.startswith("cache/")
