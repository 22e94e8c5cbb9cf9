"""`fiber caption`, `fiber answer` and `fiber detect`: a checkpoint on a user's own pictures."""

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from fiber_cli.cli.options import (
    AsJson,
    Batch,
    Checkpoint,
    DeviceOption,
    Force,
    Images,
    Latest,
    MaxPixels,
    PrecisionOption,
    Tf32,
    chunk_size,
)
from fiber_cli.cli.runs import checkpoint_for, checkpoint_with
from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.errors import UserError
from fiber_cli.placement import Placement
from fiber_cli.tasks import tasks_with
from fiber_cli.tasks.abilities import Answering, Captioning, Detecting

if TYPE_CHECKING:
    from fiber_cli.checkpoints.runs import Wanted


def caption(
    images: Images,
    checkpoint: Checkpoint = None,
    latest: Latest = False,
    beam: Annotated[int, typer.Option(min=1, help="Beam width.")] = 5,
    as_published: Annotated[bool, typer.Option("--as-published", help="Search as the published code does.")] = False,
    published: Annotated[bool, typer.Option("--published", hidden=True)] = False,
    json: AsJson = False,
    batch: Batch = 16,
    max_pixels: MaxPixels = MAX_PIXELS,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    tf32: Tf32 = None,
) -> None:
    """Say what is in images."""
    _check_there(images)
    from fiber_cli.inference.describe import describe_images
    from fiber_cli.inference.fiber import Fiber

    path = checkpoint_with(Captioning, "captions", checkpoint, latest=latest)
    placement = Placement(device, precision, tf32)
    model = Fiber.from_pretrained(path, latest=latest, batch_size=batch, **asdict(placement))
    as_published = as_published or published
    describe_images(
        images,
        lambda pictures: model.caption(pictures, beam, as_published),
        "caption",
        batch=batch,
        as_json=json,
        max_pixels=max_pixels,
    )


def answer(
    images: Images,
    question: Annotated[str, typer.Argument(help="A question about each of the images.")],
    checkpoint: Checkpoint = None,
    latest: Latest = False,
    json: AsJson = False,
    batch: Batch = 16,
    max_pixels: MaxPixels = MAX_PIXELS,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    tf32: Tf32 = None,
) -> None:
    """Answer a question about images."""
    if not question.strip():
        raise UserError('the question is empty; write one, such as "what colour is the car?"')
    _check_there(images)
    from fiber_cli.inference.describe import describe_images
    from fiber_cli.inference.fiber import Fiber
    from fiber_cli.inference.unseen import say_unseen

    path = checkpoint_with(Answering, "answers", checkpoint, latest=latest)
    placement = Placement(device, precision, tf32)
    model = Fiber.from_pretrained(path, latest=latest, batch_size=batch, **asdict(placement))
    say_unseen([model.loaded], [question])
    describe_images(
        images,
        lambda pictures: model.answer(pictures, question),
        "answer",
        batch=batch,
        as_json=json,
        max_pixels=max_pixels,
    )


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
        typer.Option(
            metavar="[TEXT]", help='Find the phrases of a sentence, all or these: "a man; two dogs", which need none.'
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least score.  [default: what the checkpoint's validation chose, else 0.3]"),
    ] = None,
    nms: Annotated[
        float | None, typer.Option(min=0, max=1, help="IoU with a better box of the label that drops a box.")
    ] = None,
    agnostic_nms: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="IoU with a better box of any label that drops a box: 0.8 leaves an object its best name, 1 drops "
            "none.  [default: 0.8 in the pictures of --out, else 1]",
        ),
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Most boxes of an image.")] = None,
    chunk: Annotated[str, typer.Option(help="Labels in one prompt, or auto: as many as fit.")] = "auto",
    json: AsJson = False,
    coco: Annotated[Path | None, typer.Option(help="Write COCO results, and <name>-images.json beside them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write pictures and videos with the boxes into this folder.")] = None,
    force: Force = False,
    checkpoint: Checkpoint = None,
    latest: Latest = False,
    batch: Batch = 4,
    max_pixels: MaxPixels = MAX_PIXELS,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    tf32: Tf32 = None,
) -> None:
    """Find things in images and videos, by names or by the phrases of a sentence."""
    if not "".join(words).strip() or (labels is None and not words[-1].strip()):
        raise UserError('the prompt is empty; say what to find, such as "cat . dog"')
    if phrases is not None and phrases != "" and not phrases.strip(" ;"):
        raise UserError('--phrases names nothing; give some, such as "a man; two dogs"')
    if labels and phrases is not None:
        raise typer.BadParameter("--labels names what to find, --phrases is for a sentence: give one of them")
    files, prompt, phrases = _sorted_words(words, phrases, has_labels=labels is not None)
    _check_files(files, prompt)
    _check_there(map(Path, files))
    labels_in_prompt = chunk_size(chunk)

    from fiber_cli.inference.detect import run_detect
    from fiber_cli.inference.queries import read_queries

    names = read_queries(labels, "label")[0] if labels else None
    wanted = prompt if names is None and phrases is None else names
    run_detect(
        checkpoint_for(_detector(wanted, latest=latest), checkpoint),
        [Path(file) for file in files],
        latest=latest,
        labels=wanted,
        sentence=prompt,
        phrases=phrases or None,
        threshold=threshold,
        nms_iou=nms,
        agnostic_nms_iou=agnostic_nms,
        top_k=top_k,
        chunk=labels_in_prompt,
        as_json=json,
        coco=coco,
        out=out,
        batch=batch,
        max_pixels=max_pixels,
        force=force,
        labels_file=labels,
        placement=Placement(device, precision, tf32),
    )


def _detector(labels: str | list[str] | None, *, latest: bool) -> "Wanted":
    """One that was trained to find these names, or without names the phrases of a sentence. latest: see `Wanted`."""
    from fiber_cli.checkpoints.runs import Wanted
    from fiber_cli.data.category_names import plain_name
    from fiber_cli.tasks.regions.prompts import parse_prompt

    tasks = tasks_with(Detecting)
    if labels is None:
        return Wanted("phrases", tasks, Detecting, texts=frozenset({"phrases"}), latest=latest)
    names = parse_prompt(labels) if isinstance(labels, str) else labels
    plain_names = frozenset(map(plain_name, names)) - {""}
    return Wanted("names", tasks, Detecting, labels=plain_names, texts=frozenset({"names"}), latest=latest)


def _sorted_words(
    words: list[str], phrases: str | None, *, has_labels: bool
) -> tuple[list[str], str | None, str | None]:
    """The files, the prompt or the sentence behind them, None where none is needed, and the value of --phrases.

    The parser gives a bare --phrases the word behind it, the first file or the sentence, which goes back to its place.
    """
    if phrases and os.path.exists(phrases):
        words, phrases = [phrases, *words], ""
    if has_labels:
        return words, None, None
    if phrases and all(os.path.exists(word) for word in words):
        if ";" in phrases:
            return words, None, phrases
        return words, phrases, ""
    return words[:-1], words[-1], phrases


def _check_files(files: list[str], prompt: str | None) -> None:
    """Refuses a line without files, or whose last word may be a file as well."""
    usage = 'give files, and behind them what to find, such as "cat . dog"'
    if not files:
        raise typer.BadParameter(usage)
    if prompt and os.path.exists(prompt):
        raise typer.BadParameter(f'{usage}; {prompt!r} is a file or folder here, as a name it is "{prompt} ."')


def _check_there(paths: Iterable[Path]) -> None:
    """Refuses files and folders that are not there, before what reads them is loaded."""
    from fiber_cli.inference.picture_files import check_there

    for path in paths:
        check_there(path)
