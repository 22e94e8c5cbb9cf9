"""The files that a command reads of a checkpoint, which its outputs must not replace."""

from pathlib import Path

from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.run_files import POINTERS, RECIPE


def checkpoint_files(path: str | Path, *, latest: bool = False) -> list[Path]:
    """Of the checkpoint that `directory.choose` finds for a path, and what chooses it in its run. UserError where there
    is none."""
    folder = resolve(path, latest=latest)
    files = [file for file in folder.rglob("*") if file.is_file()]
    files += [folder.parent / name for name in POINTERS]
    files.append(folder.parent.parent / RECIPE)
    return files
