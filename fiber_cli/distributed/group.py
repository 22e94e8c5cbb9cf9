"""The process group that a launcher's environment describes."""

import atexit
import os
import re
import socket
import time
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as td
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed import distributed_c10d as c10d

from fiber_cli.distributed.device import device, local_rank
from fiber_cli.distributed.meeting import ALONE_SECONDS, POLL_SECONDS, meet, timeout_seconds
from fiber_cli.errors import UserError
from fiber_cli.printing import say

#: First of the ports that jobs under SLURM meet at, and how many there are.
_FIRST_PORT, _PORTS = 20000, 20000


def init_from_env(*, always: bool = False) -> None:
    """Join the process group that the launcher's environment describes; nothing in a single process.

    Read: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT as `--nproc`, torchrun and deepspeed set
    them, else in a step of srun SLURM_PROCID, SLURM_STEP_NUM_TASKS or SLURM_NTASKS, SLURM_LOCALID (the master is the
    first node of SLURM_JOB_NODELIST); FIBER_TIMEOUT: seconds that ranks wait for one another, to begin and in every
    collective. `always` makes a group of one where there is none. UserError where not all ranks come.
    """
    if td.is_initialized():
        return
    env = os.environ
    if "RANK" not in env and _slurm_tasks(env) > 1:
        env.update(_slurm_env(env))
    if torch.cuda.is_available():
        _take_gpu()
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    world = _number("WORLD_SIZE", "1")
    if world > 1:
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in env]
        if missing:
            raise UserError(f"WORLD_SIZE={env['WORLD_SIZE']} is set but {', '.join(missing)} is not; use a launcher")
        _join(backend, _number("RANK"), world)
        # A rank that ends with its connections open can abort, which would look like a failed run.
        atexit.register(leave)
    elif always:
        env.setdefault("LOCAL_RANK", "0")
        td.init_process_group(backend, store=td.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]


def _join(backend: str, rank: int, world: int) -> None:
    """Wait for the other ranks and make a group with them."""
    _turns.store = meet(rank, world, os.environ["MASTER_ADDR"], _number("MASTER_PORT"))
    timeout = timedelta(seconds=timeout_seconds())
    # DeepSpeed makes groups of its own, without saying how long they wait.
    c10d.default_pg_timeout = timeout
    c10d.default_pg_nccl_timeout = timeout  # type: ignore[attr-defined]
    td.init_process_group(
        backend,
        store=_turns.store,
        rank=rank,
        world_size=world,
        timeout=timeout,
        device_id=device() if backend == "nccl" else None,
    )


class _Turns:
    """The times that rank 0 has worked alone, as the group's store has them; None in one process."""

    store: Store | None = None
    count: int = 0

    def next(self) -> str:
        """The name of the turn that begins, the same on all ranks."""
        self.count += 1
        return f"fiber/turn/{self.count}"


_turns = _Turns()


def main_is_done() -> None:
    """On rank 0: the others, which `wait_for_main`, may go on."""
    name = _turns.next()
    if _turns.store is not None:
        _turns.store.set(name, "done")


def wait_for_main() -> None:
    """On the other ranks: wait until rank 0 `main_is_done`, longer than a collective may take. UserError where that is
    never."""
    name = _turns.next()
    limit = max(ALONE_SECONDS, timeout_seconds())
    began = time.monotonic()
    while _turns.store is not None and not _turns.store.check([name]):
        if time.monotonic() - began > limit:
            raise UserError(f"rank 0 has worked alone for {limit:g} s, the others wait no longer")
        time.sleep(POLL_SECONDS)


def leave() -> None:
    """Close the connections to the other ranks."""
    _turns.store = None
    if td.is_initialized():
        td.destroy_process_group()


def _number(name: str, default: str = "") -> int:
    """A variable of the launcher's."""
    value = os.environ.get(name, default)
    if not value.isdecimal():
        raise UserError(f"{name}={value!r} is no number; use a launcher, which sets it")
    return int(value)


def _take_gpu() -> None:
    """Make this process's GPU the current one; UserError where there is none for it."""
    if local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"process {local_rank()} of this machine has no GPU: there are {torch.cuda.device_count()}; "
            "start at most one process per GPU"
        )
    torch.cuda.set_device(device())


def _slurm_tasks(env: Mapping[str, str]) -> int:
    """How many processes srun has started together with this one. In a script of sbatch or a shell of salloc the job's
    SLURM_NTASKS is set too, but nobody has started them: this process is alone, and says so."""
    tasks = int(env.get("SLURM_STEP_NUM_TASKS", env.get("SLURM_NTASKS", 1)))
    if tasks == 1 or "SLURM_PROCID" not in env:
        return 1
    if "SLURM_STEP_ID" not in env and env["SLURM_PROCID"] == "0":
        say(
            f"SLURM_NTASKS={tasks}, but srun has not started this process: it works alone; `srun fiber …` starts all "
            f"{tasks}, --nproc as many on this machine"
        )
        return 1
    return tasks


def _slurm_env(env: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables from SLURM's."""
    # The same on all ranks, different for jobs that share a node.
    port = _FIRST_PORT + int(env.get("SLURM_JOB_ID", 0)) % _PORTS
    nodes = env.get("SLURM_JOB_NODELIST", socket.gethostname())
    return {
        "RANK": env["SLURM_PROCID"],
        "WORLD_SIZE": env.get("SLURM_STEP_NUM_TASKS", env["SLURM_NTASKS"]),
        "LOCAL_RANK": env.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": env.get("MASTER_ADDR", _first_node(nodes)),
        "MASTER_PORT": env.get("MASTER_PORT", str(port)),
    }


def _first_node(nodes: str) -> str:
    """Of a list such as "gpu[07-09,12],cpu3"."""
    match = re.match(r"([^\[,]+)(?:\[(\w+))?", nodes)
    return f"{match[1]}{match[2] or ''}" if match else nodes
