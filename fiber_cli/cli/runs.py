"""Runs below the current folder and their checkpoints."""

import sys
from pathlib import Path

from fiber_cli.cli.processes import is_first_rank
from fiber_cli.errors import UserError


def newest_checkpoint(tasks: tuple[str, ...]) -> Path:
    """The newest `runs/*/checkpoints/latest` below the current folder of one of the tasks. UserError where there is
    none."""
    from fiber_cli.checkpoints.config import read_config
    from fiber_cli.checkpoints.directory import resolve

    pointers = sorted(Path("runs").glob("*/checkpoints/latest"), key=_changed, reverse=True)
    for pointer in pointers:
        if read_config(resolve(pointer)).task.name in tasks:
            if is_first_rank():
                print(f"checkpoint: {pointer.parents[1]}, the newest run", file=sys.stderr)
            return pointer
    wanted = " or ".join(tasks)
    raise UserError(
        f"no runs/*/checkpoints/latest of task {wanted} below the current folder: name one with --checkpoint"
    )


def _changed(file: Path) -> float:
    return file.stat().st_mtime


def run_of(checkpoint: Path) -> Path:
    """The run that a checkpoint directory is of, or the directory where it stands alone."""
    if checkpoint.parent.name == "checkpoints":
        return checkpoint.parent.parent
    return checkpoint
