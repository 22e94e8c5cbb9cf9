"""Checkpoint directories written, whole or not at all, and those of a run taken away that it no longer needs."""

import errno
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import save as to_bytes
from torch import Tensor

from fiber_cli.checkpoints.directory import replace, resolve, steps
from fiber_cli.checkpoints.removing import clear, remove_checkpoint, remove_tree
from fiber_cli.checkpoints.run_files import CHECKPOINTS, LATEST
from fiber_cli.checkpoints.words import write_words
from fiber_cli.outputs import sync
from fiber_cli.text_files import dump_json

#: A checkpoint that is being written.
_UNFINISHED = re.compile(r"\.step-[0-9]{1,15}\.tmp")


class SavedTokenizer(Protocol):
    """A tokenizer that can write its own files."""

    def save_pretrained(self, folder: str, /) -> object: ...


def write_model(
    folder: Path,
    config: dict[str, Any],
    weights: Mapping[str, Tensor],
    tokenizer: SavedTokenizer | None,
    words: Collection[str] | None,
) -> None:
    """Write what using a checkpoint reads into a folder, weights as they are. Raises OSError."""
    write_about(folder, config, tokenizer, words)
    write_weights(folder, weights)


def write_about(
    folder: Path, config: dict[str, Any], tokenizer: SavedTokenizer | None, words: Collection[str] | None
) -> None:
    """The small files of it, all but the weights. Raises OSError."""
    text = dump_json(config, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    if tokenizer is not None:
        _save_tokenizer(tokenizer, folder / "tokenizer")
    if words is not None:
        write_words(folder, words)


def write_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """model.safetensors. Raises OSError."""
    (folder / "model.safetensors").write_bytes(to_bytes(dict(weights), {"format": "pt"}))


def _save_tokenizer(tokenizer: SavedTokenizer, folder: Path) -> None:
    try:
        tokenizer.save_pretrained(str(folder))
    except OSError:
        raise
    except Exception as error:  # of the tokenizers library, whatever stopped it
        raise OSError(errno.EIO, str(error), str(folder)) from error


def publish(temporary: Path, final: Path) -> None:
    """Give a complete directory its name, then move `latest` to it."""
    for path in temporary.rglob("*"):
        sync(path)
    # A directory of this name is left over from a run that was resumed from an earlier step.
    clear(final)
    temporary.rename(final)
    sync(final.parent)
    replace(final.parent / LATEST, final.name + "\n")


def prune(run_dir: Path, keep_last: int, best: str | None) -> None:
    """Delete all but the newest `keep_last` checkpoints, the one that `latest` names and `best` (a name or
    None); see `remove_checkpoint`. Raises OSError."""
    folder = Path(run_dir) / CHECKPOINTS
    complete = steps(run_dir)
    spared = {path.name for path in complete[-max(1, keep_last) :]}
    spared |= {best or "", resolve(folder, latest=True).name}
    for path in complete:
        if path.name not in spared:
            remove_checkpoint(path)
    remove_unfinished(run_dir)


def remove_unfinished(run_dir: Path) -> None:
    """What a kill has left of checkpoints that were being written. Raises OSError."""
    for path in (Path(run_dir) / CHECKPOINTS).glob(".step-*.tmp"):
        if _UNFINISHED.fullmatch(path.name):
            remove_tree(path)
