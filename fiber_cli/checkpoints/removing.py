"""Checkpoint directories taken away: what fiber wrote into them, and nothing that somebody else has put there."""

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from fiber_cli.checkpoints.config import CONFIG_FILE
from fiber_cli.checkpoints.digests import files_of, read_digests
from fiber_cli.errors import UserError, first_names
from fiber_cli.outputs import DIGESTS
from fiber_cli.printing import say


def remove_tree(path: Path) -> None:
    """Remove a directory of fiber's own, such as one that a kill has left half-written, where it is there; of a link
    the link alone. Raises OSError."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        # Without its config.json a half-deleted directory no longer passes for a checkpoint.
        (path / CONFIG_FILE).unlink(missing_ok=True)
        shutil.rmtree(path)


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint where it is there; of a link the link alone. Files that others have put into its directory
    stay where they are, which is told. Raises OSError."""
    if checkpoint.is_symlink() or not checkpoint.is_dir():
        checkpoint.unlink(missing_ok=True)
        return
    own = _own_files(checkpoint)
    (checkpoint / CONFIG_FILE).unlink(missing_ok=True)
    others = sorted(_remove_within(checkpoint, own))
    if others:
        say(f"{checkpoint} is no more, but for what fiber did not write: {first_names(others)}")


def clear(checkpoint: Path) -> None:
    """Have nothing under the name of a checkpoint that is about to be written: `remove_checkpoint`, and what is left
    goes to a name beside it. Raises OSError."""
    remove_checkpoint(checkpoint)
    if checkpoint.exists():
        aside = next(filter(_is_free, _names_beside(checkpoint)))
        checkpoint.rename(aside)
        say(f"  it now lies in {aside}")


def _own_files(checkpoint: Path) -> set[str]:
    """The files that were written with a checkpoint, by their paths in it."""
    own = {DIGESTS, CONFIG_FILE}
    try:
        own.update(read_digests(checkpoint))
    except UserError:
        own.update(files_of(checkpoint, state=True))  # one from before digests, or a damaged one
    return own


def _remove_within(folder: Path, own: Collection[str]) -> Iterator[str]:
    """Remove the files of these paths and all folders that are empty then; gives the paths of the others. Links to
    folders are never followed."""
    for parent, folders, files in os.walk(folder, topdown=False, onerror=_raise):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            path = Path(parent, name)
            inside = path.relative_to(folder).as_posix()
            if inside in own:
                path.unlink()
            else:
                yield inside
        if not os.listdir(parent):
            os.rmdir(parent)


def _raise(error: OSError) -> None:
    raise error


def _names_beside(checkpoint: Path) -> Iterator[Path]:
    number = 1
    while True:
        yield checkpoint.with_name(f"{checkpoint.name}.kept-{number}")
        number += 1


def _is_free(path: Path) -> bool:
    return not os.path.lexists(path)
