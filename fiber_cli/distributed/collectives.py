"""Ranks and the few collectives the toolkit needs; everything is a no-op in one process.

Works on gloo (CPU) and NCCL. Every rank must call a collective in the same order.
"""

import atexit
import ctypes
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import torch
import torch.distributed as td
from torch import Tensor

from fiber_cli.errors import EXIT_FAILED, EXIT_OK, EXIT_STOPPED, UserError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
#: How long the other ranks may go on after one has failed.
GRACE_SECONDS = 5.0


def rank() -> int:
    return td.get_rank() if td.is_initialized() else 0


def world_size() -> int:
    return td.get_world_size() if td.is_initialized() else 1


def local_rank() -> int:
    """This process's number on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_main() -> bool:
    return rank() == 0


def device() -> torch.device:
    """This process's GPU, or the CPU where there is none."""
    return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def gather_objects(obj: Any) -> list:
    """The picklable `obj` of every rank, in rank order, on every rank."""
    if world_size() == 1:
        return [obj]
    gathered = [None] * world_size()
    td.all_gather_object(gathered, obj)
    return gathered


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum over ranks, as a new tensor; not differentiable."""
    total = tensor.detach().clone()
    if world_size() > 1:
        td.all_reduce(total)
    return total


def any_rank(flag: bool) -> bool:
    """True on every rank if true on one."""
    if world_size() == 1:  # asked every step: nothing to wait for the GPU for
        return flag
    return bool(all_reduce_sum(torch.tensor(int(flag), device=device())))


def all_gather_grad(tensor: Tensor) -> Tensor:
    """(B, …) of every rank, B equal everywhere → (world * B, …) in rank order.

    The gradient of a rank's rows is the sum of the gradients that all ranks have for them.
    """
    return tensor if world_size() == 1 else _AllGather.apply(tensor)


def exchange_rows(rows: Tensor, wanted: Tensor) -> Tensor:
    """The rows with the global numbers `wanted`, int64 (K,), fetched from the ranks that hold them.

    Every rank holds the same number B of rows (B, …); row j of rank r has the number r * B + j. K may differ
    between ranks. Any dtype. The gradient goes back to the owner, which sums it.
    """
    return rows[wanted] if world_size() == 1 else _ExchangeRows.apply(rows, wanted)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        gathered = tensor.new_empty(world_size() * len(tensor), *tensor.shape[1:])
        td.all_gather_into_tensor(gathered, tensor.contiguous())
        return gathered

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        # Reduced in float32: summing many ranks' bfloat16 gradients would lose the small ones.
        summed = all_reduce_sum(grad.float())
        return summed.chunk(world_size())[rank()].to(grad.dtype)


class _ExchangeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, wanted: Tensor) -> Tensor:
        owner = wanted // len(rows)
        order = owner.argsort(stable=True)
        requested = all_gather_grad(owner.bincount(minlength=world_size()))
        asks = requested.view(world_size(), world_size()).tolist()
        ctx.from_owner, ctx.to_asker = asks[rank()], [row[rank()] for row in asks]
        ctx.order, ctx.rows = order, len(rows)
        ctx.sent = _all_to_all(wanted[order] % len(rows), ctx.from_owner, ctx.to_asker)
        received = _all_to_all(rows[ctx.sent], ctx.to_asker, ctx.from_owner)
        return torch.empty_like(received).index_copy_(0, order, received)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        returned = _all_to_all(grad[ctx.order], ctx.from_owner, ctx.to_asker)
        total = grad.new_zeros(ctx.rows, *grad.shape[1:])
        return total.index_add_(0, ctx.sent, returned), None


def _all_to_all(tensor: Tensor, send: list[int], receive: list[int]) -> Tensor:
    """Consecutive runs of `send[r]` rows go to rank r; returns the `receive[r]` rows that came from each rank
    r.

    Moves bytes, because gloo does not know every dtype.
    """
    result = tensor.new_empty(sum(receive), *tensor.shape[1:])
    width = math.prod(tensor.shape[1:])
    source, target = (t.reshape(len(t), width).view(torch.uint8) for t in (tensor, result))
    td.all_to_all_single(target, source, receive, send)
    return result


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
        if local_rank() >= torch.cuda.device_count():
            raise UserError(
                f"process {local_rank()} of this machine has no GPU: there are {torch.cuda.device_count()}; "
                "start at most one process per GPU"
            )
        torch.cuda.set_device(device())
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
        td.init_process_group(backend, store=td.HashStore(), rank=0, world_size=1)


def leave() -> None:
    """Close the connections to the other ranks."""
    if td.is_initialized():
        td.destroy_process_group()


def _slurm_env(env: os._Environ) -> dict[str, str]:
    """torchrun's variables from SLURM's. Nodes are listed as "gpu[07-09,12],cpu3"."""
    node = re.match(r"([^\[,]+)(?:\[(\w+))?", env.get("SLURM_JOB_NODELIST", socket.gethostname()))
    return {
        "RANK": env["SLURM_PROCID"],
        "WORLD_SIZE": env["SLURM_NTASKS"],
        "LOCAL_RANK": env.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": env.get("MASTER_ADDR", node[1] + (node[2] or "")),
        # The same on all ranks, different for jobs that share a node.
        "MASTER_PORT": env.get("MASTER_PORT", str(20000 + int(env.get("SLURM_JOB_ID", 0)) % 20000)),
    }


def free_port() -> int:
    """A TCP port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(nproc: int, argv: list[str]) -> int:
    """Run `python -m fiber_cli ARGV` as `nproc` ranks on this machine and return the exit code of the run.

    SIGTERM, SIGINT and SIGUSR1 are passed on. When one rank fails the others get a moment to say what they
    have to say, then are ended, and its code is returned; EXIT_STOPPED if the ranks stopped with that.
    """
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc)))
    env = os.environ | {
        "WORLD_SIZE": str(nproc),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": threads,
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "fiber_cli", *argv],
            env=env | {"RANK": str(r), "LOCAL_RANK": str(r)},
            # Own sessions: the terminal's Ctrl-C reaches them once, through the launcher.
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        for r in range(nproc)
    ]

    def forward(number: int, frame: object) -> None:
        for process in ranks:
            process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    failed = EXIT_OK
    deadline = math.inf
    try:
        while None in (codes := [process.poll() for process in ranks]) and time.monotonic() < deadline:
            if not failed and (bad := [c for c in codes if c not in (None, EXIT_OK, EXIT_STOPPED)]):
                failed = bad[0] if bad[0] > 0 else EXIT_FAILED
                deadline = time.monotonic() + GRACE_SECONDS
            time.sleep(0.05)
        return failed or max(code if code >= 0 else EXIT_FAILED for code in codes)
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
            process.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _die_with_parent() -> None:
    """A launcher killed with SIGKILL cannot end its ranks, so the kernel does (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
