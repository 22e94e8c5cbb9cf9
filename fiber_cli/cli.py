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
from typing import Annotated, Literal

import typer

from fiber_cli.errors import EXIT_FAILED, EXIT_USAGE, UserError

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

DATASET_HELP = "scenes, coco, flickr30k, flickr8k, a Karpathy JSON, or a folder or pattern of .tar shards."
Nproc = Annotated[int, typer.Option(min=1, help="Processes to start on this machine.")]


@app.command()
def pretrain(
    context: typer.Context,
    stage: Annotated[Literal["coarse"], typer.Argument(help="Pre-training stage.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings put over the recipe's.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="A recipe file, or the name of a shipped one.")] = ...,
    output: Annotated[Path | None, typer.Option(help="Run folder.  [default: runs/<recipe name>]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
    init_from: Annotated[Path | None, typer.Option(help="Checkpoint to take first weights from.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and run one batch.")] = False,
    nproc: Nproc = 1,
) -> None:
    """Pre-train from images and captions."""
    from fiber_cli.recipe import check_world, find_recipe, resolve_recipe

    file = str(find_recipe(recipe))
    settings = resolve_recipe(file, overrides or ())
    output = output or Path("runs") / settings.name
    if resume and init_from:
        raise typer.BadParameter("--resume continues a run, --init-from starts a new one: give one of them")
    # Other ranks may look after the first has begun to write.
    if _first_rank() and not (resume or dry_run) and output.is_dir() and any(output.iterdir()):
        raise UserError(f"{output} is not empty: pass --resume to continue it, or another --output")
    if nproc > 1:
        check_world(settings, nproc)
        raise typer.Exit(_launch(context, nproc, "--recipe", file))
    from fiber_cli import engine

    if dry_run:
        engine.dry_run(settings)
    else:
        raise typer.Exit(engine.fit(settings, output, resume=resume, init_from=init_from))


@app.command("eval")
def evaluate(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help=DATASET_HELP)],
    mode: Annotated[Literal["itc"], typer.Option(help="How pairs are scored: itc = dual encoder.")] = "itc",
    checkpoint: Annotated[Path | None, typer.Option(help="[default: the newest run below runs/]")] = None,
    split: Annotated[str | None, typer.Option(help="[default: val of scenes, else test]")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of a known dataset, or a JSON's images.")] = None,
    output: Annotated[Path | None, typer.Option(help="Results folder.  [default: eval/ in the run]")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images or texts per rank and pass.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read data, per rank.")] = 4,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate the first N images only.")] = None,
    nproc: Nproc = 1,
) -> None:
    """Evaluate a checkpoint on retrieval."""
    from fiber_cli.data.registry import eval_data

    data = eval_data(dataset, split, root)
    checkpoint = checkpoint or _newest_checkpoint()
    if nproc > 1:
        raise typer.Exit(_launch(context, nproc, "--checkpoint", str(checkpoint)))
    from fiber_cli.checkpoint import resolve
    from fiber_cli.data import SOURCES
    from fiber_cli.evaluate import run_eval

    checkpoint = resolve(checkpoint)
    if output is None:
        run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
        first = f"-first{limit}" if limit else ""
        output = run / "eval" / f"{data.name}-{data.split}-{mode}-{checkpoint.name}{first}"
    run_eval(
        [SOURCES[spec.pop("kind")](**spec) for spec in data.sources],
        dataset=data.name,
        split=data.split,
        mode=mode,
        checkpoint=checkpoint,
        output=output,
        batch=batch,
        workers=workers,
        limit=limit,
    )


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Checkpoint file of the published code.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Checkpoint folder to write.")],
    task: Annotated[Literal["coarse"], typer.Option(help="What the checkpoint was trained for.")] = "coarse",
    tokenizer: Annotated[str, typer.Option(help="Hub name or folder of its tokeniser.")] = "roberta-base",
) -> None:
    """Turn a published checkpoint into a checkpoint folder."""
    from fiber_cli.convert import convert_file

    print(convert_file(source, output, task=task, tokenizer=tokenizer))


@recipes.callback()
def list_recipes(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        from fiber_cli.recipe import recipe_header, shipped_recipes

        for name, path in shipped_recipes().items():
            header = recipe_header(path)
            reproduces = f"reproduces: {header['reproduces']}"
            print(name, header["about"], reproduces, header["command"], sep="\n    ")


@recipes.command()
def show(name: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a file.")]) -> None:
    """Print a recipe."""
    from fiber_cli.recipe import find_recipe

    print(find_recipe(name).read_text(encoding="utf-8"), end="")


@recipes.command()
def schema() -> None:
    """Print the reference of all recipe settings, in Markdown."""
    from fiber_cli.recipe import schema_markdown

    print(schema_markdown(), end="")


def _first_rank() -> bool:
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _newest_checkpoint() -> Path:
    """The newest `runs/*/checkpoints/latest` below the current folder."""
    found = sorted(Path("runs").glob("*/checkpoints/latest"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError("no runs/*/checkpoints/latest below the current folder: name one with --checkpoint")
    if _first_rank():
        print(f"checkpoint: {found[-1].parents[1]}, the newest run", file=sys.stderr)
    return found[-1]


def _launch(context: typer.Context, nproc: int, *settled: str) -> int:
    """The same command without `--nproc` in that many processes; `settled` is an option already looked up."""
    from fiber_cli import dist

    words, argv = iter(context.obj), []
    for word in words:
        if word == "--nproc":
            next(words)
        elif not word.startswith("--nproc="):
            argv.append(word)
    return dist.launch(nproc, [*argv, *settled])


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        app(args=argv, prog_name="fiber", obj=argv)
    except UserError as error:
        from fiber_cli.recipe import RecipeError

        print(f"fiber: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE if isinstance(error, RecipeError) else EXIT_FAILED)
