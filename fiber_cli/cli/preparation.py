"""`fiber vqa-answers`, `fiber cider-df` and `fiber convert`: what is made once, before training or use."""

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fiber_cli.characters import one_line
from fiber_cli.cli.options import Force, Overrides, RecipeName, one_of
from fiber_cli.errors import UserError
from fiber_cli.printing import say, show
from fiber_cli.tasks import declarations


def published_checkpoints() -> tuple[str, ...]:
    """The kinds of checkpoint of the authors' code that can become one of ours."""
    names: list[str] = []
    for declaration in declarations():
        names += declaration.published_checkpoints
    return tuple(names)


if TYPE_CHECKING:
    PublishedCheckpoint = str
else:
    PublishedCheckpoint = one_of(published_checkpoints())


def vqa_answers(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ANNOTATIONS...", help="VQAv2's annotations JSON, train and val; with --recipe, settings over it."
        ),
    ] = None,
    *,
    recipe: Annotated[str | None, typer.Option(help="Take the annotations and the output from this recipe.")] = None,
    output: Annotated[Path | None, typer.Option(help="File to write.  [default: the recipe's task.answers]")] = None,
    minimum: Annotated[int, typer.Option(min=1, help="Occurrences that make an answer part of it.")] = 9,
    force: Force = False,
) -> None:
    """Build the answer vocabulary of VQA: `fiber vqa-answers --recipe vqav2 data.root=/data`, or of files."""
    from fiber_cli.outputs import Outputs
    from fiber_cli.tasks.vqa.vocabulary import build_vocabulary, write_vocabulary

    annotations = [Path(argument) for argument in arguments or ()]
    if recipe is not None:
        annotations, named = _of_vqa_recipe(recipe, arguments or [])
        output = output or named
    if not annotations or output is None:
        raise typer.BadParameter("give the annotations and --output, or a --recipe that names both")
    outputs = Outputs(force=force, inputs=[*annotations, *_recipe_file(recipe)])
    outputs.check(output)
    answers = build_vocabulary(annotations, minimum)
    if not answers:
        raise UserError(f"no answer comes {minimum} times in {', '.join(map(str, annotations))}: lower --minimum")
    write_vocabulary(output, answers, outputs)
    show(one_line(f"{output}: {len(answers)} answers"))


def _recipe_file(name: str | None) -> "list[Path]":
    """The file of a recipe, where one is named."""
    from fiber_cli.config.resolve import find_recipe

    return [] if name is None else [Path(find_recipe(name))]


def _of_vqa_recipe(name: str, overrides: list[str]) -> tuple[list[Path], Path | None]:
    """The annotations that a recipe trains on, and where it looks for the vocabulary."""
    from fiber_cli.config.resolve import resolve_recipe
    from fiber_cli.data.sources.vqa import VqaSourceSettings
    from fiber_cli.tasks.vqa.settings import VqaSettings

    recipe = resolve_recipe(name, overrides)
    if not isinstance(recipe.task, VqaSettings):
        raise UserError(f"--recipe {name}: a recipe for {recipe.task.name}; the vocabulary is VQA's")
    annotations = []
    for source in recipe.data.train:
        if isinstance(source, VqaSourceSettings) and source.annotations:
            annotations.append(Path(source.annotations))
    return annotations, Path(recipe.task.answers) if recipe.task.answers else None


def cider_df(
    *,
    recipe: RecipeName,
    output: Annotated[Path | None, typer.Option(help="File to write.  [default: the recipe's task.cider_df]")] = None,
    overrides: Overrides = None,
    force: Force = False,
) -> None:
    """Count the document frequencies of CIDEr optimisation over a recipe's training captions."""
    from fiber_cli.config.resolve import resolve_recipe
    from fiber_cli.data.source_files import source_files
    from fiber_cli.outputs import Outputs
    from fiber_cli.tasks.caption.data import count_document_frequencies
    from fiber_cli.tasks.caption.settings import CaptionSettings
    from fiber_cli.training.work import open_sources

    resolved = resolve_recipe(recipe, overrides or ())
    if output is None and isinstance(resolved.task, CaptionSettings) and resolved.task.cider_df:
        output = Path(resolved.task.cider_df)
    if output is None:
        raise typer.BadParameter(f"{recipe} names no task.cider_df: give --output")
    outputs = Outputs(force=force, inputs=chain(_recipe_file(recipe), source_files(resolved.data.train)))
    outputs.check(output)
    sources = open_sources(resolved.data.train, resolved.data)
    show(one_line(count_document_frequencies(sources, str(output), outputs)))


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="Checkpoint file of the published code, or its https:// address; with --to-published one of fiber's.",
        ),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="Checkpoint folder to write; with --to-published a file.")
    ],
    task: Annotated[PublishedCheckpoint, typer.Option(help="What the checkpoint was trained for.")] = "coarse",
    tokenizer: Annotated[str, typer.Option(help="Hub name or folder of its tokeniser.")] = "roberta-base",
    answers: Annotated[Path | None, typer.Option(help="VQA's vocabulary, of `fiber vqa-answers`.")] = None,
    sha256: Annotated[str | None, typer.Option(metavar="DIGEST", help="SHA-256 that IN must have.")] = None,
    downloads: Annotated[
        Path | None, typer.Option(help="Folder of fetched files.  [default: fiber/downloads in the user's cache]")
    ] = None,
    to_published: Annotated[
        bool, typer.Option("--to-published", help="The other way: write a file that the published code reads.")
    ] = False,
    force: Force = False,
) -> None:
    """Turn a published checkpoint into a checkpoint folder, or a checkpoint of fiber's into a published one.

    The file may be a plain state dict or as Lightning or maskrcnn-benchmark wrap it. What has no place is said, with
    the reason. An address is fetched first, going on where an earlier try was cut.
    """
    if to_published:
        from fiber_cli.checkpoints.published.back import convert_back

        if answers is not None or sha256 is not None or downloads is not None:
            raise typer.BadParameter("--answers, --sha256 and --downloads are of the way from a published checkpoint")
        show(one_line(convert_back(source, output, force=force)))
        return
    from fiber_cli.checkpoints.published.file import convert_file

    file = _published_file(source, sha256, downloads)
    show(one_line(convert_file(file, output, task=task, tokenizer=tokenizer, answers=answers, force=force)))


def _published_file(source: str, sha256: str | None, downloads: Path | None) -> Path:
    """The file that is named, fetched where that is an address. UserError where it has not the digest."""
    from fiber_cli.downloads import check_sha256, downloads_folder, fetch, is_address, place_of
    from fiber_cli.outputs import Outputs, sha256_of

    digest = None if sha256 is None else check_sha256(sha256)
    if is_address(source):
        checksum = None if digest is None else ("sha256", digest)
        fetched = fetch(source, place_of(source, downloads or downloads_folder()), Outputs(), checksum=checksum)
        if not fetched.is_new:
            say(f"{fetched.file}: is there already, fetched from {source}")
        return fetched.file
    file = Path(source)
    if digest is not None and file.is_file() and sha256_of(file) != digest:
        raise UserError(
            f"{file}: its SHA-256 is {sha256_of(file)}, not {sha256}; get the file again, or correct --sha256"
        )
    return file
