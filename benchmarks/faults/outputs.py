"""Outputs over inputs, over a user's files, over fiber's own, and where none can be: for every verb that writes."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.bench import Bench, content, refusal_problem, success_problem, temporary_files
from benchmarks.faults.kinds import Case, Verdict
from benchmarks.faults.stock import Stock, copy

USERS_TEXT = b"what a user wrote\n"


@dataclass(frozen=True)
class Output:
    """A file or folder that a command writes. words: from the stock, the folder with copied inputs, and the output;
    name: of the output; inputs: made in the folder, what the output must never replace; is_folder: what it is."""

    what: str
    name: str
    inputs: Callable[[Stock, Path], Path]
    words: Callable[[Stock, Path, Path], Sequence[object]]
    is_folder: bool = False


def _picture(stock: Stock, folder: Path) -> Path:
    return copy(stock.pictures(), folder) / "0.png"


OUTPUTS = (
    Output(
        "detect --coco",
        "found.json",
        _picture,
        lambda stock, file, output: [
            *("detect", file, "cat . dog", "--threshold", "0", "--coco", output, "--checkpoint", stock.run("fine"))
        ],
    ),
    Output(
        "detect --labels --coco",
        "found.json",
        lambda stock, folder: _text(folder / "labels.txt", "cat\ndog\n"),
        lambda stock, file, output: [
            *("detect", stock.pictures(), "--labels", file, "--threshold", "0", "--coco", output),
            *("--checkpoint", stock.run("fine")),
        ],
    ),
    Output(
        "rerank --sheet",
        "sheet.png",
        _picture,
        lambda stock, file, output: [
            *("rerank", "--images", file.parent, "--query", "a star", "--sheet", output, "--workers", "0"),
            *("--index", file.parent.parent / "index.safetensors", "--checkpoint", stock.run("coarse")),
        ],
    ),
    Output(
        "rerank --queries --sheet",
        "sheet.png",
        lambda stock, folder: _text(folder / "queries.txt", "a star\n"),
        lambda stock, file, output: [
            *("rerank", "--images", stock.pictures(), "--queries", file, "--sheet", output, "--workers", "0"),
            *("--index", file.parent / "index.safetensors", "--checkpoint", stock.run("coarse")),
        ],
    ),
    Output(
        "rerank --index",
        "index.safetensors",
        _picture,
        lambda stock, file, output: [
            *("rerank", "--images", file.parent, "--query", "a star", "--workers", "0"),
            *("--index", output, "--checkpoint", stock.run("coarse")),
        ],
    ),
    Output(
        "vqa-answers --output",
        "answers.json",
        lambda stock, folder: copy(stock.vqa_annotations(), folder),
        lambda stock, file, output: ["vqa-answers", file, "--minimum", "1", "--output", output],
    ),
    Output(
        "cider-df --output",
        "df.json",
        lambda stock, folder: copy(stock.karpathy(), folder),
        lambda stock, file, output: [
            *("cider-df", "--recipe", stock.recipe(), "--output", output),
            f"data.train=[{{kind: karpathy, json: {file}, images: {stock.pictures()}}}]",
        ],
    ),
    Output(
        "cider-df --recipe --output",
        "df.json",
        lambda stock, folder: copy(stock.recipe(), folder),
        lambda stock, file, output: ["cider-df", "--recipe", file, "--output", output],
    ),
    Output(
        "detect --out",
        "out",
        _picture,
        lambda stock, file, output: [
            *("detect", file, "cat . dog", "--threshold", "0", "--out", output, "--checkpoint", stock.run("fine"))
        ],
        is_folder=True,
    ),
    Output(
        "eval --output",
        "results",
        lambda stock, folder: copy(stock.coco(), folder),
        lambda stock, file, output: [
            *("eval", file, "--images", stock.pictures(), "--workers", "0"),
            *("--output", output, "--checkpoint", stock.run("fine")),
        ],
        is_folder=True,
    ),
    Output(
        "convert OUT",
        "converted",
        lambda stock, folder: copy(stock.published(), folder),
        lambda stock, file, output: ["convert", file, output, "--tokenizer", "builtin"],
        is_folder=True,
    ),
)


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


#: Puts the output onto the input in some way: (input, folder) → the path to write.
Onto = Callable[[Path, Path], Path]


def _same(file: Path, folder: Path) -> Path:
    return file


def _by_link(file: Path, folder: Path) -> Path:
    (folder / "link").symlink_to(file)
    return folder / "link"


def _by_hard_link(file: Path, folder: Path) -> Path:
    os.link(file, folder / "hard")
    return folder / "hard"


def _other_spelling(file: Path, folder: Path) -> Path:
    """Through the folder above and back."""
    return Path(f"{file.parent}/../{file.parent.name}/./{file.name}")


def _by_linked_folder(file: Path, folder: Path) -> Path:
    (folder / "linked").symlink_to(file.parent)
    return folder / "linked" / file.name


def _relative(file: Path, folder: Path) -> Path:
    return file.relative_to(folder)


ONTO_INPUT: dict[str, Onto] = {
    "the input itself": _same,
    "the input through a symbolic link": _by_link,
    "the input through a hard link": _by_hard_link,
    "the input by another spelling": _other_spelling,
    "the input through a linked folder": _by_linked_folder,
    "the input by a relative path": _relative,
}


def cases() -> list[Case]:
    """All outputs, each onto all that it must spare."""
    made = []
    for output in OUTPUTS:
        for name, onto in ONTO_INPUT.items():
            for force in (False, True):
                instance = f"{output.what} over {name}{' with --force' * force}"
                made.append(Case("outputs", 1, instance, _onto_input(output, onto, force=force)))
        for name, attempt in (
            ("over a user's file", _over_users_file),
            ("over a user's file through a link", _over_linked_file),
            ("over a user's file with --force", _forced),
            ("over its own", _over_own),
            ("in a folder that is not there", _nowhere),
            ("below a file", _below_a_file),
            ("over a link to nothing", _over_dangling_link),
        ):
            made.append(Case("outputs", 1, f"{output.what} {name}", attempt(output)))
        if not output.is_folder:
            made.append(Case("outputs", 1, f"{output.what} over a folder", _over_folder(output)))
        if os.geteuid():
            made.append(Case("outputs", 1, f"{output.what} in a folder without permission", _forbidden(output)))
    return made


def _onto_input(output: Output, onto: Onto, *, force: bool) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        file = output.inputs(bench.stock, folder)
        target = onto(file, folder)
        before = content(folder)
        words = [*output.words(bench.stock, file, target), *(["--force"] if force else [])]
        ended = bench.program.run(*words, cwd=folder)
        problem = harmed(folder, before) or left(folder)
        # A link may be replaced by the output, which then leaves the input alone.
        if problem is None and not (force and onto is _by_link and ended.code == 0):
            problem = refusal_problem(ended)
        if problem is None and "No such option" in ended.err:
            problem = "there is no --force"
        return Verdict(ended, problem)

    return attempt


def _over_users_file(output: Output) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        file = output.inputs(bench.stock, folder)
        target = users_file(output, folder)
        before = content(folder)
        ended = bench.program.run(*output.words(bench.stock, file, target), cwd=folder)
        return Verdict(ended, harmed(folder, before) or refusal_problem(ended, output.name) or left(folder))

    return attempt


def users_file(output: Output, folder: Path) -> Path:
    """What a user has under the output's name: a file, or a folder with files that the command would write."""
    target = folder / output.name
    if not output.is_folder:
        target.write_bytes(USERS_TEXT)
        return target
    target.mkdir()
    for name in ("results.json", "detections.json", "0.png", "config.json", "model.safetensors"):
        (target / name).write_bytes(USERS_TEXT)
    return target


def _over_linked_file(output: Output) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        file = output.inputs(bench.stock, folder)
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        (folder / output.name).symlink_to(users_file(output, elsewhere))
        before = content(folder)
        ended = bench.program.run(*output.words(bench.stock, file, folder / output.name), cwd=folder)
        return Verdict(ended, harmed(folder, before) or refusal_problem(ended) or left(folder))

    return attempt


def _forced(output: Output) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        file = output.inputs(bench.stock, folder)
        target = users_file(output, folder)
        ended = bench.program.run(*output.words(bench.stock, file, target), "--force", cwd=folder)
        problem = success_problem(ended) or left(folder)
        if problem is None and not output.is_folder and target.read_bytes() == USERS_TEXT:
            problem = "exit 0, and the file is not replaced"
        return Verdict(ended, problem)

    return attempt


def _over_own(output: Output) -> Callable[[Bench, Path], Verdict]:
    """Own results are kept beside or replaced, never mixed, and never a reason for a traceback."""

    def attempt(bench: Bench, folder: Path) -> Verdict:
        file = output.inputs(bench.stock, folder)
        words = output.words(bench.stock, file, folder / output.name)
        first = bench.program.run(*words, cwd=folder)
        problem = success_problem(first)
        if problem:
            return Verdict(first, f"first: {problem}")
        ended = bench.program.run(*words, cwd=folder)
        problem = None if ended.code == 0 else refusal_problem(ended, output.name)
        return Verdict(ended, problem or left(folder))

    return attempt


def _nowhere(output: Output) -> Callable[[Bench, Path], Verdict]:
    """Made, or refused."""

    def attempt(bench: Bench, folder: Path) -> Verdict:
        file = output.inputs(bench.stock, folder)
        target = folder / "new" / "newer" / output.name
        ended = bench.program.run(*output.words(bench.stock, file, target), cwd=folder)
        problem = refusal_problem(ended, output.name) if ended.code else None
        if problem is None and ended.code == 0 and not target.exists():
            problem = "exit 0, and nothing is written"
        return Verdict(ended, problem or left(folder))

    return attempt


def _below_a_file(output: Output) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        file = output.inputs(bench.stock, folder)
        (folder / "file").write_bytes(USERS_TEXT)
        before = content(folder)
        ended = bench.program.run(*output.words(bench.stock, file, folder / "file" / output.name), cwd=folder)
        return Verdict(ended, harmed(folder, before) or refusal_problem(ended) or left(folder))

    return attempt


def _over_dangling_link(output: Output) -> Callable[[Bench, Path], Verdict]:
    """Made in its place, behind it or refused."""

    def attempt(bench: Bench, folder: Path) -> Verdict:
        file = output.inputs(bench.stock, folder)
        (folder / output.name).symlink_to(folder / "nothing")
        ended = bench.program.run(*output.words(bench.stock, file, folder / output.name), cwd=folder)
        problem = refusal_problem(ended, output.name) if ended.code else None
        return Verdict(ended, problem or left(folder))

    return attempt


def _over_folder(output: Output) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        file = output.inputs(bench.stock, folder)
        (folder / output.name).mkdir()
        (folder / output.name / "file").write_bytes(USERS_TEXT)
        before = content(folder)
        ended = bench.program.run(*output.words(bench.stock, file, folder / output.name), cwd=folder)
        return Verdict(ended, harmed(folder, before) or refusal_problem(ended, output.name) or left(folder))

    return attempt


def _forbidden(output: Output) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        file = output.inputs(bench.stock, folder)
        (folder / "locked").mkdir(mode=0o555)
        ended = bench.program.run(*output.words(bench.stock, file, folder / "locked" / output.name), cwd=folder)
        return Verdict(ended, refusal_problem(ended) or left(folder))

    return attempt


def harmed(folder: Path, before: dict[str, bytes]) -> str | None:
    """Which file is not what it was."""
    after = content(folder)
    for path, bytes_before in before.items():
        if path not in after:
            return f"{path} is gone"
        if after[path] != bytes_before:
            return f"{path} is overwritten"
    return None


def left(folder: Path) -> str | None:
    """What is left that is not whole."""
    names = temporary_files(folder)
    return f"leaves {', '.join(names[:3])}" if names else None
