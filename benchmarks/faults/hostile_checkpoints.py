"""Checkpoints with code, config.json with wrong values, and things in a run folder that are none of its own."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults import harm
from benchmarks.faults.hostile import Hostile, Make
from benchmarks.faults.stock import Stock, copy, train_words

STEP = "checkpoints/step-000002"
CODE = "from pathlib import Path\nPath('executed').touch()\nclass Own:\n    pass\n"


def tokenizer_with_code(folder: Path) -> None:
    """A tokeniser whose class comes with it."""
    config = folder / "tokenizer_config.json"
    written = json.loads(config.read_text())
    auto_map = {"AutoTokenizer": ["own.Own", "own.Own"]}
    config.write_text(json.dumps(written | {"tokenizer_class": "Own", "auto_map": auto_map}))
    (folder / "own.py").write_text(CODE)


def config_with_code(folder: Path) -> None:
    """The same in the file that the hub has for models."""
    (folder / "own.py").write_text(CODE)
    written = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", None]}}
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "tokenizer_config.json").unlink()


def custom_tokenizer_class(folder: Path) -> None:
    """A class of transformers that nobody has."""
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "../../own.Own"}))
    (folder / "own.py").write_text(CODE)


def _copied(task: str, change: Callable[[Path], object], inside: str = "") -> Make:
    """A picture captioned, answered or searched with a copy of a checkpoint that was changed."""

    def make(stock: Stock, folder: Path) -> list[object]:
        run = copy(stock.run(task), folder, "run")
        change(run / STEP / inside)
        picture = stock.pictures() / "0.png"
        if task == "caption":
            return ["caption", picture, "--checkpoint", run]
        if task == "vqa":
            return ["answer", picture, "what is it?", "--checkpoint", run]
        return ["detect", picture, "cat . dog", "--checkpoint", run]

    return make


def _resumed(change: Callable[[Path], object], inside: str = "") -> Make:
    """A copy of a run that was changed, and goes on."""

    def make(stock: Stock, folder: Path) -> list[object]:
        run = copy(stock.run("coarse"), folder, "run")
        change(run / inside)
        return [*train_words("coarse", stock.recipe(), run), "--resume"]

    return make


def _with_tokenizer(change: Callable[[Path], object]) -> Make:
    """A recipe that names the tokeniser."""

    def make(stock: Stock, folder: Path) -> list[object]:
        tokenizer = copy(stock.tokenizer(), folder, "words")
        change(tokenizer)
        return train_words("coarse", stock.recipe(), folder / "out", f"model.tokenizer={tokenizer}")

    return make


def _engine_state_with_code(run: Path) -> None:
    """The engine's own file is a pickle with code."""
    for file in (run / STEP / "state").rglob("*.pt"):
        harm.pickled_code(file)


def json_change(**changes: object) -> Callable[[Path], object]:
    """A JSON file with other values."""

    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def task_change(**changes: object) -> Callable[[Path], object]:
    """A config.json with other values in its section `task`."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        content["task"] = content["task"] | changes
        path.write_text(json.dumps(content))

    return change


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


#: A tokeniser with code: (what is wrong, the change).
TOKENIZERS: dict[str, Callable[[Path], object]] = {
    "a tokeniser with code": tokenizer_with_code,
    "a tokeniser's config.json with code": config_with_code,
    "a tokeniser of an own class": custom_tokenizer_class,
}
#: (what is wrong, the task of the run, the file or folder of its checkpoint, the change, what the error names)
CHECKPOINTS: tuple[tuple[str, str, str, Callable[[Path], object], str], ...] = (
    ("caption: a later format", "caption", "config.json", json_change(format_version=10**6), "config.json"),
    ("caption: a task that there is none of", "caption", "config.json", task_change(name="everything"), "step-000002"),
    ("caption: no tokeniser", "caption", "tokenizer", shutil.rmtree, "tokenizer"),
    ("detect: labels that are a number", "fine", "config.json", json_change(labels=3), "config.json"),
    ("answer: labels of numbers", "vqa", "config.json", json_change(labels=list(range(32))), "config.json"),
    ("caption: a text length of text", "caption", "config.json", json_change(text_length="long"), "config.json"),
)
#: (what is wrong, the file of a run that goes on, the change, what the error names)
RUNS: tuple[tuple[str, str, Callable[[Path], object], str], ...] = (
    ("`latest` leads out of the folder", "checkpoints/latest", _text("../../..\n"), "latest"),
    ("`latest` has many lines", "checkpoints/latest", _text("step-000002\nstep-000001\n"), "latest"),
    ("metrics.jsonl has lists", "metrics.jsonl", _text("[1]\n[1]\n"), "metrics.jsonl"),
    ("metrics.jsonl has a step of text", "metrics.jsonl", _text('{"step": "two"}\n'), "metrics.jsonl"),
    ("run.json has text for numbers", f"{STEP}/state/run.json", json_change(step="two", progress="two"), "run.json"),
)
#: What may lie in a run folder, and be taken or refused: (what, puts it there).
FOREIGN: dict[str, Callable[[Path], object]] = {
    "a copied folder of a checkpoint": lambda run: _copied_step(run, "step-000002 copy"),
    "a step without digits": lambda run: _copied_step(run, "step-last"),
    "a step of Arabic digits": lambda run: _copied_step(run, "step-٣"),
    "a step of superscript digits": lambda run: _copied_step(run, "step-²"),
    "a checkpoint that is not whole": lambda run: _copied_step(run, ".step-000003.tmp"),
    "a file with the name of a checkpoint": lambda run: (run / "checkpoints/step-000009").write_text("x"),
    "an empty folder with the name of a checkpoint": lambda run: (run / "checkpoints/step-000009").mkdir(),
    "a link round in the folder": lambda run: (run / "checkpoints/round").symlink_to(".."),
    "a pipe in the folder": lambda run: os.mkfifo(run / "pipe"),
    "a summary.json that is binary": lambda run: (run / "summary.json").write_bytes(b"\xff\x00"),
    "a curves.png that is a folder": lambda run: harm.directory(run / "curves.png"),
}


def _copied_step(run: Path, name: str) -> None:
    shutil.copytree(run / STEP, run / "checkpoints" / name)


def hostile() -> list[Hostile]:
    made = []
    for what, change in TOKENIZERS.items():
        for task, verb in (("caption", "caption"), ("vqa", "answer"), ("fine", "detect")):
            made.append(Hostile(10, f"{verb}: {what}", _copied(task, change, "tokenizer"), "tokenizer", either=True))
        made.append(Hostile(10, f"pretrain: model.tokenizer is {what}", _with_tokenizer(change), "words", either=True))
    weights = _copied("caption", harm.pickled_code, "model.safetensors")
    made.append(Hostile(10, "caption: weights that are a pickle", weights, "model.safetensors"))
    made.append(Hostile(10, "pretrain: the engine's state has code", _resumed(_engine_state_with_code), ".pt"))
    own = _resumed(harm.pickled_code, f"{STEP}/state/run.safetensors")
    made.append(Hostile(10, "pretrain: the run's own state has code", own, "run.safetensors"))
    for what, task, file, change, named in CHECKPOINTS:
        made.append(Hostile(5, what, _copied(task, change, file), named))
    for what, file, change, named in RUNS:
        made.append(Hostile(5, f"pretrain --resume: {what}", _resumed(change, file), named))
    for what, change in FOREIGN.items():
        made.append(Hostile(5, f"pretrain --resume: {what}", _resumed(change), "", either=True))
    return made
