"""The `fiber` command: parses, resolves, and hands over to the engine.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed: input that cannot be used, or an error |
| 2 | wrong usage, or a recipe with errors |
| 75 | stopped by SIGTERM or SIGUSR1 after saving; `--resume` continues |
| 130 | interrupted |

Heavy modules are imported inside the functions, so that `fiber --help` answers at once.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperCommand

from fiber_cli.errors import EXIT_FAILED, UserError
from fiber_cli.kinds import CONVERTED, REGION_TASKS

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich alone takes longer to import than all else
    pretty_exceptions_enable=False,
    help="FIBER: vision-language pre-training with fusion in the backbone.",
    epilog="Exit codes: 0 done; 1 failed; 2 wrong usage or recipe; 75 stopped by a signal after saving, "
    "--resume continues; 130 interrupted.",
)
recipes = typer.Typer(rich_markup_mode=None, help="List the shipped recipes and what each reproduces.")
app.add_typer(recipes, name="recipes", invoke_without_command=True)

DATASET_HELP = (
    "scenes, coco, flickr30k, flickr8k, coco_caption, nocaps, vqav2, nlvr2, lvis, odinw13, flickr30k_entities, refcoco, "
    "refcoco+, refcocog, a JSON of captions or boxes, a JSONL, a YAML list of detection sets, or .tar shards."
)
#: Processes that read data, where none are asked for.
WORKERS = min(4, os.cpu_count() or 1)
Nproc = Annotated[int, typer.Option(min=1, help="Processes to start on this machine.")]


Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings put over the recipe's.")
]
RecipeName = Annotated[str, typer.Option(help="A recipe file, or the name of a shipped one.")]
Output = Annotated[Path | None, typer.Option(help="Run folder.  [default: runs/<recipe name>]")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")]
InitFrom = Annotated[Path | None, typer.Option(help="Checkpoint to take first weights from.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and run one batch.")]


def training_command(name: str, about: str, word: str, tasks: Any, meaning: str) -> None:
    """Add the command `name`, whose first argument, `word`, is one of `tasks`, a Literal."""

    @app.command(name, help=about)
    def train(
        context: typer.Context,
        task: Annotated[tasks, typer.Argument(metavar=word, help=meaning)],
        overrides: Overrides = None,
        recipe: RecipeName = ...,
        output: Output = None,
        resume: Resume = False,
        init_from: InitFrom = None,
        dry_run: DryRun = False,
        nproc: Nproc = 1,
    ) -> None:
        from fiber_cli.config.resolve import RecipeError, find_recipe, resolve_recipe

        file = str(find_recipe(recipe))
        settings = resolve_recipe(file, overrides or ())
        if settings.task.name != task:
            raise RecipeError(f"{file} is a recipe for {settings.task.name}, not for {task}; `fiber recipes` lists all")
        output = output or Path("runs") / settings.name
        if resume and init_from:
            raise typer.BadParameter("--resume continues a run, --init-from starts a new one: give one of them")
        # Other ranks may look after the first has begun to write.
        if _first_rank() and not (resume or dry_run) and output.is_dir() and any(output.iterdir()):
            raise UserError(f"{output} is not empty: pass --resume to continue it, or another --output")
        if nproc > 1:
            settings.runtime.micro_steps(nproc)  # checked before anything is started
            _launch(context, nproc, "--recipe", file)
        if dry_run:
            from fiber_cli.training import plan

            plan.dry_run(settings, init_from)
        else:
            from fiber_cli.training import engine

            if task != "coarse" and not (init_from or resume or settings.model.swin or settings.model.roberta):
                print("no --init-from: training starts from random weights", file=sys.stderr)
            raise typer.Exit(engine.fit(settings, output, resume=resume, init_from=init_from))


training_command(
    "pretrain",
    "Pre-train: coarse from images and captions, fine from images, words and boxes.",
    "stage",
    Literal["coarse", "fine"],
    "Pre-training stage.",
)
training_command(
    "finetune",
    "Fine-tune a pre-trained checkpoint for a task.",
    "task",
    Literal["vqa", "nlvr2", "retrieval", "caption", "detection", "grounding", "refexp"],
    "What to train for.",
)

Split = Annotated[str | None, typer.Option(help="[default: val of scenes, vqav2 and nocaps, dev of nlvr2, else test]")]
Root = Annotated[Path | None, typer.Option(help="Folder of a known dataset, or a JSON's images.")]
Results = Annotated[Path | None, typer.Option(help="Results folder.  [default: eval/ in the run]")]
Batch = Annotated[
    int | None, typer.Option(min=1, help="Images, texts or pairs per rank and pass.  [default: 64, for detectors 4]")
]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read data, per rank.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Evaluate the first N samples only.")]
StemMemory = Annotated[float, typer.Option(min=0, help="GiB of text stems in memory; more lie on disk.")]
ItmCheckpoint = Annotated[Path | None, typer.Option(help="Checkpoint that scores pairs, if not the same.")]


@app.command("eval")
def evaluate(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help=DATASET_HELP)],
    mode: Annotated[
        Literal["itc", "itm", "itc+itm"] | None,
        typer.Option(
            help="Retrieval by dual encoder, fusion, or both.  [default: what the checkpoint was trained for]"
        ),
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="[default: the newest run below runs/]")] = None,
    itm_checkpoint: ItmCheckpoint = None,
    split: Split = None,
    root: Root = None,
    output: Results = None,
    batch: Batch = None,
    workers: Workers = WORKERS,
    limit: Limit = None,
    blind: Annotated[bool, typer.Option("--blind", help="Measure also with every image exchanged.")] = False,
    stem_memory: StemMemory = 4.0,
    chunk: Annotated[str, typer.Option(help="Names in one prompt of detection, or auto: as many as fit.")] = "auto",
    nproc: Nproc = 1,
) -> None:
    """Evaluate a checkpoint on a dataset of its task."""
    paths = (dataset, split, root, checkpoint, itm_checkpoint, output)
    options = {"batch": batch, "workers": workers, "limit": limit, "stem_memory": stem_memory}
    _evaluate(context, *paths, nproc, mode=mode, blind=blind, chunk=_chunk(chunk), **options)


def _chunk(text: str) -> int | str:
    if text != "auto" and not (text.isdecimal() and int(text)):
        raise typer.BadParameter(f"--chunk {text}: give a whole number from 1, or auto")
    return text if text == "auto" else int(text)


def _evaluate(
    context: typer.Context,
    dataset: str,
    split: str | None,
    root: Path | None,
    checkpoint: Path | None,
    itm_checkpoint: Path | None,
    output: Path | None,
    nproc: int,
    *,
    mode: str | None,
    limit: int | None,
    **options: Any,
) -> None:
    from fiber_cli.checkpoints.directory import load_config, resolve
    from fiber_cli.evaluation.datasets import eval_data, tasks_for

    checkpoint = checkpoint or _newest_checkpoint(*tasks_for(dataset))
    data = eval_data(dataset, load_config(resolve(checkpoint))["task"]["name"], split, root)
    if nproc > 1:
        _launch(context, nproc, "--checkpoint", str(checkpoint))
    from fiber_cli.distributed import collectives as dist
    from fiber_cli.data.sources import source_class
    from fiber_cli.evaluation.evaluate import own_mode, run_eval
    from fiber_cli.checkpoints.loading import load

    dist.init_from_env()
    loaded, itm = load(checkpoint), itm_checkpoint and load(itm_checkpoint)
    if itm:
        if not {loaded.name, itm.name} <= {"coarse", "retrieval"} or mode == "itc":
            raise UserError("--itm-checkpoint scores pairs: it is for retrieval with fusion, by a retrieval checkpoint")
        mode = mode or "itc+itm"
    if output is None:
        run, path = _run_of(loaded.path), loaded.path
        first = f"-first{limit}" if limit else ""
        second = f"-{_run_of(itm.path).name}" if itm else ""
        output = run / "eval" / f"{data.name}-{data.split}-{mode or own_mode(loaded)}-{path.name}{second}{first}"
    run_eval(
        [source_class(spec.pop("kind"))(**spec) for spec in data.sources],
        dataset=data.name,
        split=data.split,
        loaded=loaded,
        itm=itm,
        mode=mode,
        output=output,
        limit=limit,
        **options,
    )


@app.command()
def rerank(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Argument(help=f"{DATASET_HELP} Or none, with --images.")] = None,
    images: Annotated[Path | None, typer.Option(help="Search in this folder of images instead.")] = None,
    query: Annotated[str | None, typer.Option(help="What to search for.")] = None,
    queries: Annotated[Path | None, typer.Option(help="A file with one query a line.")] = None,
    top_k: Annotated[
        str, typer.Option(help="How many of the dual encoder's best are scored by fusion; for a dataset several.")
    ] = "50",
    index: Annotated[Path | None, typer.Option(help="Index file.  [default: in the folder]")] = None,
    shown: Annotated[int, typer.Option(min=1, help="Results to print for each query.")] = 10,
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of the best results to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all results as JSON instead of a table.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="[default: the newest run below runs/]")] = None,
    itm_checkpoint: ItmCheckpoint = None,
    split: Split = None,
    root: Root = None,
    output: Results = None,
    batch: Batch = None,
    workers: Workers = WORKERS,
    limit: Limit = None,
    stem_memory: StemMemory = 4.0,
    nproc: Nproc = 1,
) -> None:
    """Retrieve with the dual encoder and re-rank the best by fusion: a dataset's Table 4, or a search in a folder."""
    given = {"--split": split, "--root": root, "--output": output, "--limit": limit, "--nproc": nproc > 1}
    other = {"--index": index, "--sheet": sheet}
    if unused := [name for name, value in (other if dataset else given).items() if value]:
        raise typer.BadParameter(f"{', '.join(unused)}: not {'for a dataset' if dataset else 'with --images'}")
    ks = [int(k) for k in top_k.split(",") if k.strip().isdecimal() and int(k)]
    if len(ks) != len(top_k.split(",")):
        raise typer.BadParameter(f"--top-k {top_k}: give whole numbers from 1, such as 10,20,50,100")
    if dataset and not (images or query or queries):
        paths = (dataset, split, root, checkpoint, itm_checkpoint, output)
        options = {"batch": batch, "workers": workers, "limit": limit, "stem_memory": stem_memory}
        return _evaluate(context, *paths, nproc, mode="rerank", rerank=ks, as_json=json, **options)
    if dataset or images is None or (query is None) == (queries is None) or len(ks) > 1:
        raise typer.BadParameter(
            'give a DATASET; or --images DIR with --query "…" or --queries FILE, and one number as --top-k'
        )
    from fiber_cli.checkpoints.loading import load
    from fiber_cli.inference.search import run_search

    run_search(
        load(checkpoint or _newest_checkpoint("coarse", "retrieval")),
        images,
        query if queries is None else queries,
        itm=itm_checkpoint and load(itm_checkpoint),
        top_k=ks[0],
        index=index,
        shown=shown,
        sheet=sheet,
        as_json=json,
        batch_size=batch or 64,
        workers=workers,
    )


Images = Annotated[list[Path], typer.Argument(help="Image files, and folders with them.", show_default=False)]
Checkpoint = Annotated[Path | None, typer.Option(help="[default: the newest run of that task below runs/]")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def caption(
    images: Images,
    checkpoint: Checkpoint = None,
    beam: Annotated[int, typer.Option(min=1, help="Beam width.")] = 5,
    published: Annotated[bool, typer.Option("--published", help="Search as the published code does.")] = False,
    json: Json = False,
    batch: Annotated[int, typer.Option(min=1, help="Images per pass.")] = 16,
) -> None:
    """Say what is in images."""
    from fiber_cli.inference.fiber import Fiber, describe_images

    model = Fiber.from_pretrained(checkpoint or _newest_checkpoint("caption"), batch_size=batch)
    describe_images(images, lambda part: model.caption(part, beam, published), "caption", batch=batch, as_json=json)


@app.command()
def answer(
    images: Images,
    question: Annotated[str, typer.Argument(help="A question about each of the images.")],
    checkpoint: Checkpoint = None,
    json: Json = False,
    batch: Annotated[int, typer.Option(min=1, help="Images per pass.")] = 16,
) -> None:
    """Answer a question about images."""
    from fiber_cli.inference.fiber import Fiber, describe_images

    model = Fiber.from_pretrained(checkpoint or _newest_checkpoint("vqa"), batch_size=batch)
    describe_images(images, lambda part: model.answer(part, question), "answer", batch=batch, as_json=json)


class _Detect(TyperCommand):
    """`--phrases` may stand without a value: before another option, or at the end."""

    def parse_args(self, context: typer.Context, args: list[str]) -> list[str]:
        pairs = zip(args, [*args[1:], "-"])
        given = [f"{word}=" if word == "--phrases" and after.startswith("-") else word for word, after in pairs]
        return super().parse_args(context, given)


@app.command(cls=_Detect)
def detect(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES... PROMPT",
            help='Image files, folders with them, and videos; then what to find: "cat . dog", or a sentence.',
            show_default=False,
        ),
    ],
    labels: Annotated[Path | None, typer.Option(help="Find what this file names, one a line, without PROMPT.")] = None,
    phrases: Annotated[
        str | None,
        typer.Option(metavar="[TEXT]", help='Find the phrases of a sentence, all or these: "a man; two dogs".'),
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Least score.")] = 0.3,
    nms: Annotated[
        float | None, typer.Option(min=0, max=1, help="IoU with a better box of the label that drops a box.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Most boxes of an image.")] = None,
    chunk: Annotated[str, typer.Option(help="Labels in one prompt, or auto: as many as fit.")] = "auto",
    json: Json = False,
    coco: Annotated[Path | None, typer.Option(help="Write COCO results, and <name>-images.json beside them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write pictures and videos with the boxes into this folder.")] = None,
    checkpoint: Checkpoint = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per pass.")] = 4,
) -> None:
    """Find things in images and videos, by names or by the phrases of a sentence."""
    # The parser gives a bare --phrases the word behind it: the first file, or the sentence.
    if phrases and os.path.exists(phrases):
        words, phrases = [phrases, *words], ""
    elif phrases and all(map(os.path.exists, words)):
        words, phrases = [*words, phrases], ""
    asked = None if labels else words.pop()
    if labels and phrases is not None:
        raise typer.BadParameter("--labels names what to find, --phrases is for a sentence: give one of them")
    if not words or (asked and os.path.exists(asked)):
        taken = f'; {asked!r} is a file or folder here, as a name it is "{asked} ."' if words else ""
        raise typer.BadParameter(f'give files, and behind them what to find, such as "cat . dog"{taken}')
    from fiber_cli.inference.detect import run_detect
    from fiber_cli.inference.search import read_queries

    run_detect(
        checkpoint or _newest_checkpoint(*REGION_TASKS),
        [Path(word) for word in words],
        read_queries(labels, "label")[0] if labels else asked,
        phrases,
        threshold=threshold,
        nms_iou=nms,
        top_k=top_k,
        chunk=_chunk(chunk),
        as_json=json,
        coco=coco,
        out=out,
        batch=batch,
    )


@app.command("vqa-answers")
def vqa_answers(
    annotations: Annotated[list[Path], typer.Argument(help="VQAv2's annotations JSON, train and val.")],
    output: Annotated[Path, typer.Option(help="File to write.")],
    minimum: Annotated[int, typer.Option(min=1, help="Occurrences that make an answer part of it.")] = 9,
) -> None:
    """Build the answer vocabulary of VQA."""
    from fiber_cli.tasks.vqa.data import build_vocabulary, write_vocabulary

    answers = build_vocabulary(annotations, minimum)
    write_vocabulary(output, answers)
    print(f"{output}: {len(answers)} answers")


@app.command("cider-df")
def cider_df(
    recipe: RecipeName,
    output: Annotated[Path, typer.Option(help="File to write.")],
    overrides: Overrides = None,
) -> None:
    """Count the document frequencies of CIDEr optimisation over a recipe's training captions."""
    from fiber_cli.training.work import count_document_frequencies
    from fiber_cli.config.resolve import resolve_recipe

    print(count_document_frequencies(resolve_recipe(recipe, overrides or ()), output))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Checkpoint file of the published code.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Checkpoint folder to write.")],
    task: Annotated[Literal[*CONVERTED], typer.Option(help="What the checkpoint was trained for.")] = "coarse",
    tokenizer: Annotated[str, typer.Option(help="Hub name or folder of its tokeniser.")] = "roberta-base",
    answers: Annotated[Path | None, typer.Option(help="VQA's vocabulary, of `fiber vqa-answers`.")] = None,
) -> None:
    """Turn a published checkpoint into a checkpoint folder."""
    from fiber_cli.checkpoints.published import convert_file

    print(convert_file(source, output, task=task, tokenizer=tokenizer, answers=answers))


@recipes.callback()
def list_recipes(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        from fiber_cli.config.resolve import recipe_header, shipped_recipes

        for name, path in shipped_recipes().items():
            header = recipe_header(path)
            reproduces = f"reproduces: {header['reproduces']}"
            print(name, header["about"], reproduces, header["command"], sep="\n    ")


@recipes.command()
def show(name: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a file.")]) -> None:
    """Print a recipe."""
    from fiber_cli.config.resolve import find_recipe

    print(find_recipe(name).read_text(encoding="utf-8"), end="")


@recipes.command()
def schema() -> None:
    """Print the reference of all recipe settings, in Markdown."""
    from fiber_cli.config.resolve import schema_markdown

    print(schema_markdown(), end="")


def _first_rank() -> bool:
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _run_of(checkpoint: Path) -> Path:
    """The run that a checkpoint directory is of, or the directory where it stands alone."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint


def _newest_checkpoint(*tasks: str) -> Path:
    """The newest `runs/*/checkpoints/latest` below the current folder of one of the tasks."""
    from fiber_cli.checkpoints.directory import load_config, resolve

    found = sorted(Path("runs").glob("*/checkpoints/latest"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found:
        if load_config(resolve(path))["task"]["name"] in tasks:
            if _first_rank():
                print(f"checkpoint: {path.parents[1]}, the newest run", file=sys.stderr)
            return path
    what = " or ".join(tasks)
    raise UserError(f"no runs/*/checkpoints/latest of task {what} below the current folder: name one with --checkpoint")


def _launch(context: typer.Context, nproc: int, *settled: str) -> NoReturn:
    """The same command in that many processes, each told that it is one; `settled` is an option already looked up."""
    from fiber_cli.distributed import collectives as dist

    raise typer.Exit(dist.launch(nproc, [*context.obj, *settled, "--nproc", "1"]))


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        app(args=argv, prog_name="fiber", obj=argv)
    except (OSError, UserError) as error:
        print(f"fiber: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", EXIT_FAILED))
