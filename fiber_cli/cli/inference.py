"""`fiber caption`, `fiber answer` and `fiber detect`: a checkpoint on a user's own pictures."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from fiber_cli.cli.options import AsJson, Batch, Checkpoint, Images, Latest, chunk_size
from fiber_cli.cli.runs import find_run, run_with
from fiber_cli.tasks import tasks_with
from fiber_cli.tasks.abilities import Answering, Captioning, Detecting


def caption(
    images: Images,
    checkpoint: Checkpoint = None,
    latest: Latest = False,
    beam: Annotated[int, typer.Option(min=1, help="Beam width.")] = 5,
    as_published: Annotated[bool, typer.Option("--as-published", help="Search as the published code does.")] = False,
    published: Annotated[bool, typer.Option("--published", hidden=True)] = False,
    json: AsJson = False,
    batch: Batch = 16,
) -> None:
    """Say what is in images."""
    from fiber_cli.inference.describe import describe_images
    from fiber_cli.inference.fiber import Fiber

    checkpoint = checkpoint or run_with(Captioning, "captions")
    model = Fiber.from_pretrained(checkpoint, latest=latest, batch_size=batch)
    as_published = as_published or published
    describe_images(
        images, lambda pictures: model.caption(pictures, beam, as_published), "caption", batch=batch, as_json=json
    )


def answer(
    images: Images,
    question: Annotated[str, typer.Argument(help="A question about each of the images.")],
    checkpoint: Checkpoint = None,
    latest: Latest = False,
    json: AsJson = False,
    batch: Batch = 16,
) -> None:
    """Answer a question about images."""
    from fiber_cli.inference.describe import describe_images
    from fiber_cli.inference.fiber import Fiber

    checkpoint = checkpoint or run_with(Answering, "answers")
    model = Fiber.from_pretrained(checkpoint, latest=latest, batch_size=batch)
    describe_images(images, lambda pictures: model.answer(pictures, question), "answer", batch=batch, as_json=json)


class DetectCommand(TyperCommand):
    """`--phrases` may stand without a value: before another option, or at the end."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        completed = []
        for position, word in enumerate(args):
            is_last = position + 1 == len(args)
            if word == "--phrases" and (is_last or args[position + 1].startswith("-")):
                word = "--phrases="
            completed.append(word)
        return super().parse_args(context, completed)


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
    json: AsJson = False,
    coco: Annotated[Path | None, typer.Option(help="Write COCO results, and <name>-images.json beside them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write pictures and videos with the boxes into this folder.")] = None,
    checkpoint: Checkpoint = None,
    latest: Latest = False,
    batch: Batch = 4,
) -> None:
    """Find things in images and videos, by names or by the phrases of a sentence."""
    words, phrases = _give_back(words, phrases)
    if labels and phrases is not None:
        raise typer.BadParameter("--labels names what to find, --phrases is for a sentence: give one of them")
    prompt = "" if labels else words.pop()
    _check_files(words, prompt)
    labels_in_prompt = chunk_size(chunk)

    from fiber_cli.inference.detect import run_detect
    from fiber_cli.inference.queries import read_queries

    names = read_queries(labels, "label")[0] if labels else prompt
    run_detect(
        checkpoint or _detector(names, is_sentence=phrases is not None),
        [Path(word) for word in words],
        latest=latest,
        labels=names,
        sentence=None if phrases is None else prompt,
        phrases=phrases or "",
        threshold=threshold,
        nms_iou=nms,
        top_k=top_k,
        chunk=labels_in_prompt,
        as_json=json,
        coco=coco,
        out=out,
        batch=batch,
    )


def _detector(names: str | list[str], *, is_sentence: bool) -> Path:
    """The run that was trained to find these names, or for a sentence phrases."""
    from fiber_cli.checkpoints.runs import Wanted, plain_label

    tasks = tasks_with(Detecting)
    if is_sentence:
        return find_run(Wanted("phrases", tasks, Detecting, texts=frozenset({"phrases"})))
    if isinstance(names, str):
        names = names.split(".")
    labels = frozenset(map(plain_label, names)) - {""}
    return find_run(Wanted("names", tasks, Detecting, labels=labels, texts=frozenset({"names"})))


def _give_back(words: list[str], phrases: str | None) -> tuple[list[str], str | None]:
    """The parser gives a bare --phrases the word behind it, the first file or the sentence; this gives it back."""
    if phrases and os.path.exists(phrases):
        return [phrases, *words], ""
    if phrases and all(os.path.exists(word) for word in words):
        return [*words, phrases], ""
    return words, phrases


def _check_files(files: list[str], prompt: str) -> None:
    """Refuses a line without files, or whose last word may be a file as well."""
    usage = 'give files, and behind them what to find, such as "cat . dog"'
    if not files:
        raise typer.BadParameter(usage)
    if prompt and os.path.exists(prompt):
        raise typer.BadParameter(f'{usage}; {prompt!r} is a file or folder here, as a name it is "{prompt} ."')
