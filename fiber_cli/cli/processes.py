"""The processes of one command: which of them this is, and how more are started."""

import os
from typing import NoReturn

import typer

from fiber_cli.errors import UserError


def is_first_rank() -> bool:
    """Whether this process alone speaks and checks; before the ranks know of each other."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def hide_gpus(device: str | None) -> None:
    """Of a command on the CPU, whose ranks would else take a GPU each to talk by. Before torch has looked for any."""
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def train_on(device: str | None) -> None:
    """The devices of a training: "cpu" hides all GPUs, "cuda" is a UserError where there is none, None takes what
    there is."""
    if device not in (None, "cpu", "cuda"):
        raise typer.BadParameter(
            f"--device {device}: give cpu or cuda, one GPU a process; CUDA_VISIBLE_DEVICES says which"
        )
    hide_gpus(device)
    if device == "cuda":
        from torch.cuda import is_available

        if not is_available():
            raise UserError("--device cuda: this machine has no GPU that PyTorch can use; give cpu, or no --device")


def launch_ranks(context: typer.Context, nproc: int, *settled: str) -> NoReturn:
    """The same command in that many processes, each told that it is one; `settled` is an option already looked up."""
    from fiber_cli.distributed.launch import launch

    arguments = [*context.obj, *settled, "--nproc", "1"]
    raise typer.Exit(launch(nproc, arguments))
