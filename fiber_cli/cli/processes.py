"""The processes of one command: which of them this is, and how more are started."""

import os
from typing import NoReturn

import typer


def is_first_rank() -> bool:
    """Whether this process alone speaks and checks; before the ranks know of each other."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def launch_ranks(context: typer.Context, nproc: int, *settled: str) -> NoReturn:
    """The same command in that many processes, each told that it is one; `settled` is an option already looked up."""
    from fiber_cli.distributed.launch import launch

    arguments = [*context.obj, *settled, "--nproc", "1"]
    raise typer.Exit(launch(nproc, arguments))
