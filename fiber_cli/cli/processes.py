"""The processes of one command: which of them this is, and how more are started."""

import os
from typing import NoReturn

import typer

from fiber_cli.errors import EXIT_FAILED, EXIT_OK, EXIT_STOPPED, UserError
from fiber_cli.placement import DEVICE_VARIABLE
from fiber_cli.printing import say


def is_first_rank() -> bool:
    """Whether this process alone speaks and checks; before the ranks know of each other."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def hide_gpus(device: str | None) -> None:
    """Of a command on the CPU, whose ranks would else take a GPU each to talk by. Before torch has looked for any."""
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def train_here(device: str | None) -> None:
    """`train_on` of a command that trains itself: None takes what FIBER_DEVICE names."""
    usual = os.environ.get(DEVICE_VARIABLE)
    if device is None and usual:
        train_on(usual, f"{DEVICE_VARIABLE}=")
    else:
        train_on(device)


def train_on(device: str | None, option: str = "--device ") -> None:
    """The devices of trainings: "cpu" hides all GPUs, "cuda" is a UserError where there is none, None takes what
    there is. option: what named the device, as messages write it before the name."""
    if device not in (None, "cpu", "cuda"):
        raise typer.BadParameter(
            f"{option}{device}: give cpu or cuda, one GPU a process; CUDA_VISIBLE_DEVICES says which"
        )
    hide_gpus(device)
    if device == "cuda":
        from torch.cuda import is_available

        if not is_available():
            raise UserError(f"{option}{device}: this machine has no GPU that PyTorch can use; give cpu, or no device")


def launch_ranks(context: typer.Context, nproc: int, *settled: str) -> NoReturn:
    """The same command in that many processes, each told that it is one; `settled` is an option already looked up."""
    from fiber_cli.distributed.launch import launch

    arguments = [*context.obj, *settled, "--nproc", "1"]
    raise typer.Exit(launch(nproc, arguments))


def refuse_ranks(command: str) -> None:
    """UserError where a launcher started this process: the command starts those of its trainings itself."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"fiber {command} starts its processes itself: call it once, with --nproc")


def run_command(command: str, nproc: int, arguments: list[str]) -> None:
    """One of the commands that `command` consists of, in processes of its own; what it leaves is free for the next.
    Ends where it fails, and where a signal stopped it, as the same command goes on from there."""
    from fiber_cli.distributed.launch import launch

    asked: set[int] = set()
    # The launcher's last line says what failed, and where.
    code = launch(nproc, arguments, name=f"{command}, at `fiber {' '.join(arguments)}`", asked=asked)
    if asked and code != EXIT_FAILED:
        code = EXIT_STOPPED
    if code == EXIT_STOPPED:
        say(f"{command}: stopped; the same command again goes on from here")
    if code != EXIT_OK:
        raise typer.Exit(code)
