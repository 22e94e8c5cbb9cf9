"""The process group that a launcher's environment describes."""

import atexit
import os
import re
import socket
from collections.abc import Mapping

import torch
import torch.distributed as td

from fiber_cli.distributed.device import device, local_rank
from fiber_cli.errors import UserError

#: First of the ports that jobs under SLURM meet at, and how many there are.
_FIRST_PORT, _PORTS = 20000, 20000


def init_from_env(*, always: bool = False) -> None:
    """Join the process group that the launcher's environment describes; nothing in a single process.

    Read: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT as `--nproc`, torchrun and deepspeed set
    them, else SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID (the master is the first node of SLURM_JOB_NODELIST).
    `always` makes a group of one where there is none.
    """
    if td.is_initialized():
        return
    env = os.environ
    if "RANK" not in env and int(env.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in env:
        env.update(_slurm_env(env))
    if torch.cuda.is_available():
        _take_gpu()
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if int(env.get("WORLD_SIZE", 1)) > 1:
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in env]
        if missing:
            raise UserError(f"WORLD_SIZE={env['WORLD_SIZE']} is set but {', '.join(missing)} is not; use a launcher")
        td.init_process_group(backend, device_id=device() if backend == "nccl" else None)
        # A rank that ends with its connections open can abort, which would look like a failed run.
        atexit.register(leave)
    elif always:
        env.setdefault("LOCAL_RANK", "0")
        td.init_process_group(backend, store=td.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]


def leave() -> None:
    """Close the connections to the other ranks."""
    if td.is_initialized():
        td.destroy_process_group()


def _take_gpu() -> None:
    """Make this process's GPU the current one; UserError where there is none for it."""
    if local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"process {local_rank()} of this machine has no GPU: there are {torch.cuda.device_count()}; "
            "start at most one process per GPU"
        )
    torch.cuda.set_device(device())


def _slurm_env(env: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables from SLURM's."""
    # The same on all ranks, different for jobs that share a node.
    port = _FIRST_PORT + int(env.get("SLURM_JOB_ID", 0)) % _PORTS
    nodes = env.get("SLURM_JOB_NODELIST", socket.gethostname())
    return {
        "RANK": env["SLURM_PROCID"],
        "WORLD_SIZE": env["SLURM_NTASKS"],
        "LOCAL_RANK": env.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": env.get("MASTER_ADDR", _first_node(nodes)),
        "MASTER_PORT": env.get("MASTER_PORT", str(port)),
    }


def _first_node(nodes: str) -> str:
    """Of a list such as "gpu[07-09,12],cpu3"."""
    match = re.match(r"([^\[,]+)(?:\[(\w+))?", nodes)
    return f"{match[1]}{match[2] or ''}" if match else nodes
