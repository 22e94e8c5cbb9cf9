"""`fiber vqa-answers`, `fiber cider-df` and `fiber convert`: what is made once, before training or use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fiber_cli.cli.options import Overrides, RecipeName, one_of
from fiber_cli.tasks import declarations


def published_checkpoints() -> tuple[str, ...]:
    """The kinds of checkpoint of the authors' code that can become one of ours."""
    names: list[str] = []
    for declaration in declarations():
        names += declaration.published
    return tuple(names)


if TYPE_CHECKING:
    PublishedCheckpoint = str
else:
    PublishedCheckpoint = one_of(published_checkpoints())


def vqa_answers(
    annotations: Annotated[list[Path], typer.Argument(help="VQAv2's annotations JSON, train and val.")],
    *,
    output: Annotated[Path, typer.Option(help="File to write.")],
    minimum: Annotated[int, typer.Option(min=1, help="Occurrences that make an answer part of it.")] = 9,
) -> None:
    """Build the answer vocabulary of VQA."""
    from fiber_cli.tasks.vqa.vocabulary import build_vocabulary, write_vocabulary

    answers = build_vocabulary(annotations, minimum)
    write_vocabulary(output, answers)
    print(f"{output}: {len(answers)} answers")


def cider_df(
    *,
    recipe: RecipeName,
    output: Annotated[Path, typer.Option(help="File to write.")],
    overrides: Overrides = None,
) -> None:
    """Count the document frequencies of CIDEr optimisation over a recipe's training captions."""
    from fiber_cli.config.resolve import resolve_recipe
    from fiber_cli.tasks.caption.data import count_document_frequencies
    from fiber_cli.training.work import open_sources

    data = resolve_recipe(recipe, overrides or ()).data
    print(count_document_frequencies(open_sources(data.train, data), str(output)))


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Checkpoint file of the published code.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Checkpoint folder to write.")],
    task: Annotated[PublishedCheckpoint, typer.Option(help="What the checkpoint was trained for.")] = "coarse",
    tokenizer: Annotated[str, typer.Option(help="Hub name or folder of its tokeniser.")] = "roberta-base",
    answers: Annotated[Path | None, typer.Option(help="VQA's vocabulary, of `fiber vqa-answers`.")] = None,
) -> None:
    """Turn a published checkpoint into a checkpoint folder."""
    from fiber_cli.checkpoints.published.file import convert_file

    print(convert_file(source, output, task=task, tokenizer=tokenizer, answers=answers))
