"""`fiber push`: a checkpoint to the Hugging Face hub."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fiber_cli.characters import one_line, row
from fiber_cli.cli.options import Latest
from fiber_cli.printing import say, show

_MEGABYTE = 1e6
#: The hub's own servers, which alone are known to have its storage for large files.
_HUB = "huggingface.co"


def push(
    source: Annotated[str, typer.Argument(metavar="RUN", help="A run, of which its best is pushed, or a checkpoint.")],
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Account or organisation, and repository.")],
    revision: Annotated[
        str | None, typer.Option("--revision", "--branch", help="Branch, made where there is none.  [default: main]")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="The hub's name of a licence for the card, such as mit or cc-by-4.0."),
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.")] = None,
    latest: Latest = False,
    keep_card: Annotated[bool, typer.Option("--keep-card", help="Leave a README.md that is there as it is.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the files and the card, and push nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files there that fiber did not write.")] = False,
) -> None:
    """Push a checkpoint to the Hugging Face hub, with a model card; `--checkpoint ORG/NAME` then takes it anywhere.

    Weights, config.json, the tokenizer and the words of the training's texts are pushed, neither optimiser state nor
    data. Log in first with `hf auth login`, or set HF_TOKEN.
    """
    from fiber_cli.checkpoints.hub_names import HubName, hub_name

    parsed = hub_name(name)
    if parsed is None or (parsed.revision and revision):
        raise typer.BadParameter(f"{name}: give ORG/NAME, such as your-account/my-detector, and one branch")
    target = HubName(parsed.repository, revision or parsed.revision)
    if target.revision == "main":
        target = HubName(target.repository)
    _without_storage_elsewhere()
    from fiber_cli.checkpoints.card import CARD
    from fiber_cli.checkpoints.directory import choose
    from fiber_cli.checkpoints.push import Destination, stage
    from fiber_cli.checkpoints.push import push as push_files

    choice = choose(source, latest=latest)
    say(f"checkpoint: {choice}")
    if licence is None:
        say("no --license: the card says that none is named, and others may not use it without asking")
    with tempfile.TemporaryDirectory(prefix="fiber-push-") as temporary:
        files = stage(choice, Path(temporary), target, licence)
        if dry_run:
            for file, path in files.items():
                show(row([file, f"{path.stat().st_size / _MEGABYTE:.3f} MB"]))
            show(files[CARD].read_text(encoding="utf-8"), end="")
            return
        pushed = push_files(files, Destination(target, private, message, force, keep_card))
    done = "pushed"
    if not pushed.is_new:
        done = "nothing has changed since the last push"
    show(one_line(f"{target}: {done}, {pushed.url}"))
    show(one_line(f"use it anywhere with --checkpoint {target}"))


def _without_storage_elsewhere() -> None:
    """Have the client send large files to other servers than the hub's own by the protocol that all of them have,
    unless the user says otherwise; before the client is loaded, which looks only once."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    if endpoint and _HUB not in endpoint:
        os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
