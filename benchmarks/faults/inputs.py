"""Bad inputs, over all verbs: each must end in a few lines that name the file, without a traceback, soon, and leave
nothing behind.

The greater part is a table: files of `PLACES`, each harmed in every way of its form. The rest are lists of options
(`bad_options`), and files of the right kind with hostile content (`hostile_…`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults import (
    bad_options,
    harm,
    hostile_checkpoints,
    hostile_indexes,
    hostile_names,
    hostile_pictures,
    hostile_recipes,
    hostile_shards,
)
from benchmarks.faults.bench import Bench, judged, tree
from benchmarks.faults.kinds import Case, Verdict
from benchmarks.faults.stock import ODINW_SIZES, Stock, copy, odinw_archive, train_words

#: Makes a command line from the stock, the file that was harmed, and the folder of the trial.
Words = Callable[[Stock, Path, Path], list[object]]


@dataclass(frozen=True)
class Place:
    """A file that a command reads. good: makes the file in a folder; words: the command line; ways: how it is harmed;
    named: what the error must name, the file's name where None; either: ways that may also be taken, as long as
    nothing breaks; kind: of `KINDS`."""

    verb: str
    what: str
    good: Callable[[Stock, Path], Path]
    words: Words
    ways: Mapping[str, harm.Way]
    named: str | None = None
    either: tuple[str, ...] = ()
    kind: int = 12


def from_stock(make: Callable[[Stock], Path]) -> Callable[[Stock, Path], Path]:
    """A copy of a file of the stock."""
    return lambda stock, folder: copy(make(stock), folder)


def text_file(name: str, text: str) -> Callable[[Stock, Path], Path]:
    """A file of that text."""

    def make(stock: Stock, folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return make


def inside_run(task: str, path: str) -> Callable[[Stock, Path], Path]:
    """A file of a copied run."""
    return lambda stock, folder: copy(stock.run(task), folder, "run") / path


def karpathy_entry(file: Path, stock: Stock) -> str:
    return f"data.train=[{{kind: karpathy, json: {file}, images: {stock.pictures()}}}]"


def training(task: str, entry: Callable[[Path, Stock], str]) -> Words:
    return lambda stock, file, folder: train_words(task, stock.recipe(), folder / "out", entry(file, stock))


def resume(stock: Stock, file: Path, folder: Path) -> list[object]:
    return [*train_words("coarse", stock.recipe(), folder / "run", "optim.steps=2"), "--resume"]


def caption_with(stock: Stock, file: Path, folder: Path) -> list[object]:
    return ["caption", stock.pictures(), "--checkpoint", folder / "run"]


def coarse_of(stock: Stock) -> list[object]:
    return ["--checkpoint", stock.run("coarse"), "--workers", "0"]


CHECKPOINT = "checkpoints/step-000002"
#: A vocabulary that the built-in scenes have answers in.
ANSWERS = '["yes", "no", "red", "blue", "green", "yellow", "1", "2", "3", "4", "star", "circle", "square"]'
#: Ways in which a file may also be taken: JSON and YAML may be in UTF-16 where a mark says so.
EITHER = ("in UTF-16",)
#: Of lists that a shell may hand over as pipes, as in `--labels <(…)`.
LISTED = {
    name: way for name, way in harm.NO_TEXT.items() if name not in ("a pipe that nobody writes into", "of zero bytes")
}
#: Ways in which there are no earlier settings, or ones that are whole and others.
NO_SETTINGS = (
    *("not there", "a link to nothing", "a link to itself", "in UTF-16"),
    *("with a number for a list", "with a number of 5,000 digits"),
)
PLACES = (
    Place(
        "pretrain",
        "the recipe",
        from_stock(Stock.recipe),
        lambda stock, file, folder: ["pretrain", "coarse", "--recipe", file, "--output", folder / "out"],
        harm.OF_YAML,
    ),
    Place("pretrain", "Karpathy's JSON", from_stock(Stock.karpathy), training("coarse", karpathy_entry), harm.OF_JSON),
    Place(
        "pretrain",
        "a shard",
        lambda stock, folder: copy(stock.shards(), folder) / "0.tar",
        training("coarse", lambda file, stock: f"data.train=[{{kind: webdataset, shards: {file.parent}}}]"),
        harm.OF_ANY,
        either=("not there", "of zero bytes"),  # the other shard is there, and zeros are the end of a shard
    ),
    Place(
        "pretrain",
        "the weights of --init-from",
        inside_run("coarse", f"{CHECKPOINT}/model.safetensors"),
        lambda stock, file, folder: [
            *train_words("coarse", stock.recipe(), folder / "out"),
            *("--init-from", folder / "run"),
        ],
        harm.OF_ANY,
        kind=4,
    ),
    Place(
        "finetune",
        "COCO's JSON",
        from_stock(Stock.coco),
        training("fine", lambda file, stock: f"data.train=[{{kind: coco, json: {file}, images: {stock.pictures()}}}]"),
        harm.OF_JSON,
    ),
    Place(
        "finetune",
        "the statements",
        from_stock(Stock.statements),
        training(
            "nlvr2", lambda file, stock: f"data.train=[{{kind: statements, jsonl: {file}, images: {stock.pictures()}}}]"
        ),
        harm.OF_YAML,
    ),
    Place(
        "finetune",
        "VQA's vocabulary",
        text_file("answers.json", ANSWERS),
        training("vqa", lambda file, stock: f"task.answers={file}"),
        harm.OF_YAML | {"cut short": harm.cut},
    ),
    Place(
        "eval",
        "Karpathy's JSON",
        from_stock(Stock.karpathy),
        lambda stock, file, folder: [
            *("eval", file, "--images", stock.pictures(), "--output", folder / "out"),
            *coarse_of(stock),
        ],
        harm.OF_JSON,
    ),
    Place(
        "eval",
        "COCO's JSON",
        from_stock(Stock.coco),
        lambda stock, file, folder: [
            *("eval", file, "--images", stock.pictures(), "--output", folder / "out"),
            *("--checkpoint", stock.run("fine"), "--workers", "0"),
        ],
        harm.OF_JSON,
    ),
    Place(
        "eval",
        "a list of detection sets",
        lambda stock, folder: text_file(
            "sets.yaml", f"[{{name: one, json: {stock.coco()}, images: {stock.pictures()}, prompts: null}}]"
        )(stock, folder),
        lambda stock, file, folder: [
            *("eval", file, "--output", folder / "out", "--checkpoint", stock.run("fine"), "--workers", "0"),
        ],
        harm.OF_YAML,
    ),
    Place(
        "eval",
        "a shard",
        lambda stock, folder: copy(stock.shards(), folder) / "0.tar",
        lambda stock, file, folder: ["eval", file, "--output", folder / "out", *coarse_of(stock)],
        harm.OF_ANY,
    ),
    Place(
        "rerank",
        "the queries",
        text_file("queries.txt", "a star\na moon\n"),
        lambda stock, file, folder: [
            *("rerank", "--images", copy(stock.pictures(), folder), "--queries", file, "--index", folder / "out"),
            *coarse_of(stock),
        ],
        LISTED,
    ),
    Place(
        "rerank",
        "the index",
        text_file("index.safetensors", "no index"),
        lambda stock, file, folder: [
            *("rerank", "--images", copy(stock.pictures(), folder), "--query", "a star", "--index", file),
            *coarse_of(stock),
        ],
        {name: way for name, way in harm.OF_ANY.items() if name != "not there"},
        # There is none yet, and one is made; an empty one was cut by a kill, and is made anew.
        either=("a link to nothing", "a link to itself", "empty"),
        kind=5,
    ),
    Place(
        "caption",
        "a picture",
        lambda stock, folder: copy(stock.pictures(), folder) / "0.png",
        lambda stock, file, folder: ["caption", file, "--checkpoint", stock.run("caption")],
        harm.OF_ANY,
    ),
    Place(
        "caption",
        "the weights",
        inside_run("caption", f"{CHECKPOINT}/model.safetensors"),
        caption_with,
        harm.OF_ANY,
        kind=4,
    ),
    Place(
        "caption",
        "config.json",
        inside_run("caption", f"{CHECKPOINT}/config.json"),
        caption_with,
        harm.OF_JSON,
        named="step-000002",
        kind=5,
    ),
    Place(
        "caption",
        "the tokeniser",
        inside_run("caption", f"{CHECKPOINT}/tokenizer/tokenizer.json"),
        caption_with,
        harm.OF_JSON,
        named="step-000002",
        kind=5,
    ),
    Place(
        "answer",
        "a picture",
        lambda stock, folder: copy(stock.pictures(), folder) / "0.png",
        lambda stock, file, folder: ["answer", file, "what is it?", "--checkpoint", stock.run("vqa")],
        harm.OF_ANY,
    ),
    Place(
        "detect",
        "a picture",
        lambda stock, folder: copy(stock.pictures(), folder) / "0.png",
        lambda stock, file, folder: ["detect", file, "cat . dog", "--checkpoint", stock.run("fine")],
        harm.OF_ANY,
    ),
    Place(
        "detect",
        "a video",
        lambda stock, folder: text_file("film.mp4", "no film")(stock, folder),
        lambda stock, file, folder: ["detect", file, "cat . dog", "--checkpoint", stock.run("fine")],
        harm.OF_ANY,
    ),
    Place(
        "detect",
        "the labels",
        text_file("labels.txt", "cat\ndog\n"),
        lambda stock, file, folder: [
            *("detect", stock.pictures(), "--labels", file, "--checkpoint", stock.run("fine")),
        ],
        LISTED,
    ),
    Place(
        "vqa-answers",
        "the annotations",
        from_stock(Stock.vqa_annotations),
        lambda stock, file, folder: ["vqa-answers", file, "--output", folder / "out.json", "--minimum", "1"],
        harm.OF_JSON,
    ),
    Place(
        "cider-df",
        "the captions",
        from_stock(Stock.karpathy),
        lambda stock, file, folder: [
            *("cider-df", "--recipe", stock.recipe(), "--output", folder / "out.json"),
            karpathy_entry(file, stock),
        ],
        harm.OF_JSON,
    ),
    Place(
        "cider-df",
        "the recipe",
        from_stock(Stock.recipe),
        lambda stock, file, folder: ["cider-df", "--recipe", file, "--output", folder / "out.json"],
        harm.OF_YAML,
    ),
    Place(
        "convert",
        "the checkpoint",
        from_stock(Stock.published),
        lambda stock, file, folder: ["convert", file, folder / "out", "--tokenizer", stock.tokenizer()],
        harm.OF_ANY | {"a pickle with code": harm.pickled_code},
        kind=10,
    ),
    Place(
        "convert",
        "the vocabulary",
        text_file("answers.json", ANSWERS),
        lambda stock, file, folder: [
            *("convert", stock.published(), folder / "out", "--task", "vqa"),
            *("--tokenizer", stock.tokenizer(), "--answers", file),
        ],
        harm.NO_TEXT,
        named="",  # the weights may be refused first
    ),
    Place(
        "odinw",
        "the settings of earlier runs",
        text_file("settings.json", '{"init_from": "somewhere", "prompts": "names", "overrides": []}'),
        lambda stock, file, folder: [
            *("odinw", "--root", odinw_archive(stock, folder), "--init-from", stock.run("fine")),
            *("--output", folder, "--shots", "0", *ODINW_SIZES),
        ],
        {name: way for name, way in harm.OF_JSON.items() if name not in NO_SETTINGS},
        kind=5,
    ),
    Place(
        "recipes",
        "a recipe that is shown",
        from_stock(Stock.recipe),
        lambda stock, file, folder: ["recipes", "show", file],
        {name: way for name, way in harm.NO_TEXT.items() if name not in ("empty", "of zero bytes")},
    ),
    Place("pretrain", "recipe.yaml of the run", inside_run("coarse", "recipe.yaml"), resume, harm.OF_YAML, kind=5),
    Place(
        "pretrain",
        "metrics.jsonl of the run",
        inside_run("coarse", "metrics.jsonl"),
        resume,
        {name: way for name, way in harm.OF_YAML.items() if name not in ("not there", "empty", "a link to nothing")},
        either=("a link to itself",),
        kind=5,
    ),
    Place(
        "pretrain",
        "state/run.json of the run",
        inside_run("coarse", f"{CHECKPOINT}/state/run.json"),
        resume,
        harm.OF_JSON,
        kind=5,
    ),
    Place(
        "pretrain",
        "state/run.safetensors of the run",
        inside_run("coarse", f"{CHECKPOINT}/state/run.safetensors"),
        resume,
        harm.OF_ANY,
        kind=4,
    ),
    Place(
        "pretrain",
        "`latest` of the run",
        inside_run("coarse", "checkpoints/latest"),
        resume,
        harm.NO_TEXT,
        either=("not there", "a link to nothing", "a link to itself"),
        kind=5,
    ),
)

HOSTILE = (
    hostile_recipes,
    hostile_pictures,
    hostile_shards,
    hostile_indexes,
    hostile_checkpoints,
    hostile_names,
)


def cases() -> list[Case]:
    """All bad inputs."""
    made = []
    for place in PLACES:
        for name, way in place.ways.items():
            instance = f"{place.verb}: {place.what} is {name}"
            made.append(Case("inputs", place.kind, instance, _attempt(place, name, way)))
    made += bad_options.cases()
    for module in HOSTILE:
        made += [hostile.case() for hostile in module.hostile()]
    made += hostile_names.printed_cases()
    return made


def _attempt(place: Place, name: str, way: harm.Way) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        file = place.good(bench.stock, folder)
        way(file)
        words = place.words(bench.stock, file, folder)
        before = tree(folder)
        ended = bench.program.run(*words, cwd=folder)
        named = file.name if place.named is None else place.named
        return Verdict(ended, judged(ended, folder, before, named, is_either=name in (*place.either, *EITHER)))

    return attempt
