"""Options and settings that mean nothing, for every verb."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.bench import Bench, judged, tree
from benchmarks.faults.kinds import Case, Verdict
from benchmarks.faults.stock import SETTINGS, Stock, train_words

#: Words that stand for things of the stock: PICTURES, a folder of pictures; ONE, a picture; COARSE, VQA, CAPTION, FINE,
#: runs; KARPATHY, BOXES, ANNOTATIONS, files; RECIPE, a recipe; TOKENIZER, a tokeniser's folder; PUBLISHED and FOREIGN,
#: checkpoints of the published code and of another; NEW, a folder or file that is not there.
STANDING: dict[str, Callable[[Stock], Path]] = {
    "PICTURES": Stock.pictures,
    "ONE": lambda stock: stock.pictures() / "0.png",
    "COARSE": lambda stock: stock.run("coarse"),
    "VQA": lambda stock: stock.run("vqa"),
    "CAPTION": lambda stock: stock.run("caption"),
    "FINE": lambda stock: stock.run("fine"),
    "KARPATHY": Stock.karpathy,
    "BOXES": Stock.coco,
    "ANNOTATIONS": Stock.vqa_annotations,
    "RECIPE": Stock.recipe,
    "TOKENIZER": Stock.tokenizer,
    "PUBLISHED": Stock.published,
    "FOREIGN": Stock.foreign_weights,
}
FIND = ("detect", "ONE", "cat . dog", "--checkpoint", "FINE")
EVAL = ("eval", "scenes", "--checkpoint", "COARSE", "--workers", "0", "--output", "NEW")
SEARCH = ("rerank", "--images", "PICTURES", "--checkpoint", "COARSE", "--index", "NEW")
ODINW = ("odinw", "--root", "PICTURES", "--init-from", "FINE", "--output", "NEW")
VERBS = (
    *("pretrain", "finetune", "eval", "odinw", "few-shot", "rerank", "caption", "answer", "detect", "vqa-answers"),
    *("cider-df", "ablate", "table", "scenes"),
)
#: (what is wrong, the command line)
COMMAND_LINES: tuple[tuple[str, tuple[str, ...]], ...] = (
    *(
        (f"{verb}: an option that there is none of", (verb, "--no-such-option"))
        for verb in (*VERBS, "convert", "recipes", "models")
    ),
    *((f"{verb}: nothing at all", (verb,)) for verb in (*VERBS, "convert")),
    ("no such command", ("detcet", "ONE", "cat")),
    ("table: no such table", ("table", "9")),
    ("table: a file as folder of data", ("table", "4", "--data", "ONE", "--runs", "NEW")),
    ("ablate: no such recipe", ("ablate", "no_such_recipe", "--output", "NEW")),
    ("ablate: a picture as grid", ("ablate", "tiny", "--grid", "ONE", "--output", "NEW")),
    ("scenes: none", ("scenes", "--out", "NEW", "--count", "0")),
    ("models: no such word", ("models", "cards")),
    ("data: no such data set", ("data", "get", "imagenet")),
    ("data: a root that is not there", ("data", "check", "coco", "--root", "NEW")),
    ("data: an option that there is none of", ("data", "shard", "--no-such-option")),
    ("data: duplicates by a picture", ("data", "dedup", "ONE", "--output", "NEW")),
    ("eval: a limit of 0", (*EVAL, "--limit", "0")),
    ("eval: a batch of 0", (*EVAL, "--batch", "0")),
    ("eval: a batch of text", (*EVAL, "--batch", "four")),
    ("eval: -1 workers", (*EVAL, "--workers", "-1")),
    ("eval: a chunk of 0", (*EVAL, "--chunk", "0")),
    ("eval: no number as stem memory", (*EVAL, "--stem-memory", "nan")),
    ("eval: a negative stem memory", (*EVAL, "--stem-memory", "-1")),
    ("eval: an unknown mode", (*EVAL, "--mode", "both")),
    ("eval: an unknown split", (*EVAL, "--split", "dev")),
    ("eval: an empty name of a data set", ("eval", "", "--checkpoint", "COARSE")),
    ("eval: an unknown data set", ("eval", "imagenet", "--checkpoint", "COARSE")),
    ("eval: an empty checkpoint", ("eval", "scenes", "--checkpoint", "")),
    ("eval: a picture as checkpoint", ("eval", "scenes", "--checkpoint", "ONE")),
    ("eval: a checkpoint that is not there", ("eval", "scenes", "--checkpoint", "NEW")),
    ("eval: no runs at all", ("eval", "scenes")),
    ("eval: a file as root", ("eval", "flickr30k", "--root", "ONE", "--checkpoint", "COARSE")),
    ("eval: a data set of another task", ("eval", "vqav2", "--checkpoint", "COARSE")),
    ("eval: a split of a file that has none", ("eval", "BOXES", "--split", "val", "--checkpoint", "FINE")),
    ("rerank: the best 0", (*SEARCH, "--query", "a star", "--top-k", "0")),
    ("rerank: no number of the best", (*SEARCH, "--query", "a star", "--top-k", "")),
    ("rerank: several numbers of the best in a folder", (*SEARCH, "--query", "a star", "--top-k", "1,2")),
    ("rerank: an empty query", (*SEARCH, "--query", "")),
    ("rerank: a query of blanks", (*SEARCH, "--query", "   ")),
    ("rerank: none shown", (*SEARCH, "--query", "a star", "--shown", "0")),
    ("rerank: a query and a file of them", (*SEARCH, "--query", "a star", "--queries", "RECIPE")),
    ("rerank: a picture as folder", ("rerank", "--images", "ONE", "--query", "a star", "--checkpoint", "COARSE")),
    ("rerank: a folder without pictures", ("rerank", "--images", ".", "--query", "a star", "--checkpoint", "COARSE")),
    ("rerank: a folder that is not there", ("rerank", "--images", "NEW", "--query", "a", "--checkpoint", "COARSE")),
    ("rerank: a detector", ("rerank", "--images", "PICTURES", "--query", "a", "--checkpoint", "FINE")),
    ("rerank: an empty data set", ("rerank", "", "--checkpoint", "COARSE")),
    ("caption: a beam of 0", ("caption", "ONE", "--checkpoint", "CAPTION", "--beam", "0")),
    ("caption: a beam of 10^12", ("caption", "ONE", "--checkpoint", "CAPTION", "--beam", "1000000000000")),
    ("caption: a beam past any integer", ("caption", "ONE", "--checkpoint", "CAPTION", "--beam", "9" * 30)),
    ("caption: no pixels", ("caption", "ONE", "--checkpoint", "CAPTION", "--max-pixels", "0")),
    ("caption: fewer pixels than it has", ("caption", "ONE", "--checkpoint", "CAPTION", "--max-pixels", "10")),
    ("caption: a batch of 0", ("caption", "ONE", "--checkpoint", "CAPTION", "--batch", "0")),
    ("caption: an empty name of a picture", ("caption", "", "--checkpoint", "CAPTION")),
    ("caption: a folder without pictures", ("caption", ".", "--checkpoint", "CAPTION")),
    ("caption: a checkpoint without captioner", ("caption", "ONE", "--checkpoint", "COARSE")),
    ("answer: an empty question", ("answer", "ONE", "", "--checkpoint", "VQA")),
    ("answer: a question of blanks", ("answer", "ONE", " \t ", "--checkpoint", "VQA")),
    ("answer: a question of no-break spaces", ("answer", "ONE", "\u00a0\u2003", "--checkpoint", "VQA")),
    ("answer: no question", ("answer", "ONE", "--checkpoint", "VQA")),
    ("answer: a checkpoint without answers", ("answer", "ONE", "what?", "--checkpoint", "CAPTION")),
    ("detect: no prompt", ("detect", "ONE", "--checkpoint", "FINE")),
    ("detect: an empty prompt", ("detect", "ONE", "", "--checkpoint", "FINE")),
    ("detect: a prompt of periods", ("detect", "ONE", " . . ", "--checkpoint", "FINE")),
    ("detect: a threshold of 2", (*FIND, "--threshold", "2")),
    ("detect: no number as threshold", (*FIND, "--threshold", "nan")),
    ("detect: a negative overlap", (*FIND, "--nms", "-1")),
    ("detect: no number as overlap", (*FIND, "--nms", "nan")),
    ("detect: the best 0", (*FIND, "--top-k", "0")),
    ("detect: a chunk of text", (*FIND, "--chunk", "all")),
    ("detect: phrases that are none", ("detect", "ONE", "a man", "--phrases", " ; ", "--checkpoint", "FINE")),
    ("detect: labels and phrases", ("detect", "ONE", "--labels", "RECIPE", "--phrases", "a", "--checkpoint", "FINE")),
    ("detect: a file that is not there", ("detect", "NEW", "cat . dog", "--checkpoint", "FINE")),
    ("detect: a checkpoint without detector", ("detect", "ONE", "cat . dog", "--checkpoint", "COARSE")),
    ("vqa-answers: a minimum of 0", ("vqa-answers", "ANNOTATIONS", "--output", "NEW", "--minimum", "0")),
    ("vqa-answers: a minimum that no answer has", ("vqa-answers", "ANNOTATIONS", "--output", "NEW", "--minimum", "99")),
    ("vqa-answers: no output", ("vqa-answers", "ANNOTATIONS")),
    ("vqa-answers: a recipe of another task", ("vqa-answers", "--recipe", "RECIPE", "--output", "NEW")),
    ("cider-df: no output", ("cider-df", "--recipe", "RECIPE")),
    ("cider-df: a recipe that is not there", ("cider-df", "--recipe", "NEW", "--output", "NEW")),
    ("convert: an unknown task", ("convert", "PUBLISHED", "NEW", "--task", "everything")),
    ("convert: an address of another kind", ("convert", "http://example.org/a.ckpt", "NEW")),
    ("convert: no digest", ("convert", "PUBLISHED", "NEW", "--sha256", "12")),
    ("convert: a checkpoint that is none, back", ("convert", "PICTURES", "NEW", "--to-published")),
    ("convert: a tokeniser that is not there", ("convert", "PUBLISHED", "NEW", "--tokenizer", "/nowhere")),
    ("convert: an empty tokeniser", ("convert", "PUBLISHED", "NEW", "--tokenizer", "")),
    ("convert: a folder for the file", ("convert", "PICTURES", "NEW", "--tokenizer", "TOKENIZER")),
    ("convert: weights of something else", ("convert", "FOREIGN", "NEW", "--tokenizer", "TOKENIZER")),
    ("odinw: a root without the archive", ODINW),
    ("odinw: shots that were not drawn", (*ODINW, "--shots", "2")),
    ("odinw: seeds of text", (*ODINW, "--seeds", "three")),
    ("odinw: an unknown set", (*ODINW, "--sets", "Cats")),
    ("odinw: no sets", (*ODINW, "--sets", "")),
    ("recipes: one that is not there", ("recipes", "show", "tinny")),
    ("recipes: an empty name", ("recipes", "show", "")),
    ("recipes: none named", ("recipes", "show")),
    ("recipes: too many words", ("recipes", "schema", "tiny")),
    ("pretrain: 0 processes", ("pretrain", "coarse", "--recipe", "RECIPE", "--nproc", "0")),
    ("pretrain: a stage that there is none of", ("pretrain", "medium", "--recipe", "RECIPE")),
    ("pretrain: a recipe of another stage", ("pretrain", "fine", "--recipe", "RECIPE")),
    ("pretrain: an empty recipe name", ("pretrain", "coarse", "--recipe", "")),
    ("pretrain: the latest of nothing", ("pretrain", "coarse", "--recipe", "RECIPE", "--latest")),
    (
        "pretrain: to go on and to begin",
        ("pretrain", "coarse", "--recipe", "RECIPE", "--output", "NEW", "--resume", "--init-from", "COARSE"),
    ),
    (
        "pretrain: weights that are not there",
        ("pretrain", "coarse", "--recipe", "RECIPE", "--output", "NEW", "--init-from", "NEW"),
    ),
    ("pretrain: a file as output", ("pretrain", "coarse", "--recipe", "RECIPE", "--output", "ONE")),
)
#: (task, settings put over the recipe)
SETTINGS_PUT: tuple[tuple[str, str], ...] = (
    ("coarse", "optim.steps=-1"),
    ("coarse", "optim.steps=0"),
    ("coarse", "optim.steps=1e400"),
    ("coarse", "optim.lr=.nan"),
    ("coarse", "optim.lr=.inf"),
    ("coarse", "optim.lr=-1"),
    ("coarse", "optim.lr=fast"),
    ("coarse", "optim.lr"),
    ("coarse", "=3"),
    ("coarse", "optim=3"),
    ("coarse", "optim.lr=["),
    ("coarse", "optim.no_such_key=1"),
    ("coarse", "no_such_section.key=1"),
    ("coarse", "optim..lr=1"),
    ("coarse", "data.train=[]"),
    ("coarse", "data.train=null"),
    ("coarse", "data.train=[{kind: pictures}]"),
    ("coarse", "data.train=[{kind: scenes, count: 0}]"),
    ("coarse", "data.train=[{kind: scenes, count: -5}]"),
    ("coarse", "data.train=[{kind: scenes, weight: .nan}]"),
    ("coarse", "data.train.7.count=1"),
    ("coarse", "data.workers=-1"),
    ("coarse", "data.max_pixels=0"),
    ("coarse", "data.max_bad_rate=2"),
    ("coarse", "model.image_size=0"),
    ("coarse", "model.image_size=33"),
    ("coarse", "model.depths=[1]"),
    ("coarse", "model.image_heads=[3, 5]"),
    ("coarse", "model.fusion_layers=99"),
    ("coarse", "model.text_heads=7"),
    ("coarse", "model.tokenizer=/nowhere"),
    ("coarse", "model.swin=/nowhere.pth"),
    ("coarse", "model.roberta=/nowhere"),
    ("coarse", "task.name=everything"),
    ("coarse", "task={name: coarse, mlm: 0, itm: 0, itc: 0}"),
    ("coarse", "runtime.micro_batch=0"),
    ("coarse", "runtime.micro_batch=3"),
    ("coarse", "runtime.zero_stage=7"),
    ("coarse", "runtime.precision=fp8"),
    ("coarse", "runtime.seed=-1"),
    ("coarse", "runtime.seed=99999999999999999999999999"),
    ("coarse", "runtime.clip=-1"),
    ("coarse", "deepspeed={no_such_key: 1}"),
    ("coarse", "deepspeed={zero_optimisation: {stage: 2}}"),
    ("coarse", "deepspeed={gradient_clipping: much}"),
    ("coarse", "deepspeed=[1, 2]"),
    ("coarse", "log.save_every=0"),
    ("coarse", "log.keep_best=vqa/accuracy"),
    ("vqa", "task.answers=/nowhere.json"),
    ("caption", "task.objective=cider"),
    ("caption", "task.beam=0"),
    ("fine", "task.short_sides=[]"),
    ("fine", "task.channels=33"),
    ("fine", "task.control=[1, 2]"),
)


def cases() -> list[Case]:
    """Each of these as a trial."""
    made = []
    for what, words in COMMAND_LINES:
        made.append(Case("inputs", 12, what, _command_line(words)))
    for task, setting in SETTINGS_PUT:
        verb = "pretrain" if task in ("coarse", "fine") else "finetune"
        made.append(Case("inputs", 12, f"{verb}: {task} with {setting}", _setting(task, setting)))
    return made


def _command_line(words: tuple[str, ...]) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        spoken = []
        for word in words:
            if word == "NEW":
                spoken.append(str(folder / "new"))
            elif word in STANDING:
                spoken.append(str(STANDING[word](bench.stock)))
            else:
                spoken.append(word)
        before = tree(folder)
        ended = bench.program.run(*spoken, cwd=folder)
        return Verdict(ended, judged(ended, folder, before))

    return attempt


def _setting(task: str, setting: str) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        assert task in SETTINGS
        before = tree(folder)
        words = train_words(task, bench.stock.recipe(), folder / "out", setting)
        ended = bench.program.run(*words, cwd=folder)
        return Verdict(ended, judged(ended, folder, before))

    return attempt
