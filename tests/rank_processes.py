"""Two ranks in processes of their own, each of which runs a function and writes what comes of it."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import torch
from toy_runs import PATIENCE_SECONDS, processes

from fiber_cli.distributed.group import init_from_env
from fiber_cli.distributed.launch import free_port
from fiber_cli.distributed.peers import telling_ended_processes
from fiber_cli.errors import UserError


class Ended(NamedTuple):
    """How a rank ended. result: what its function returned; error: its UserError, and whether it was to tell it."""

    code: int | None
    result: object = None
    error: str | None = None
    kind: str | None = None
    is_told: bool = False
    exit_code: int = 0


def on_two_ranks(folder: Path, function, *, joins=True, **env: str) -> list[Ended]:
    """`function(rank, folder)` on two ranks that are in one group where `joins`; env: what they get besides."""
    port = str(free_port())
    ranks = []
    for rank in (0, 1):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        own |= {"MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **env}
        ranks.append(processes.Process(target=_on_rank, args=(rank, folder, function, joins, own), daemon=False))
        ranks[-1].start()
    ended = []
    for number, process in enumerate(ranks):
        process.join(PATIENCE_SECONDS)
        hangs = process.exitcode is None
        process.kill()
        assert not hangs, f"rank {number} hangs"
        file = folder / f"ended{number}.json"
        content = json.loads(file.read_text()) if file.is_file() else {}
        ended.append(Ended(process.exitcode, **content))
    return ended


def _on_rank(rank, folder, function, joins, env):
    os.environ |= env
    torch.set_num_threads(1)
    log = os.open(folder / f"log{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    ended = {}
    try:
        with telling_ended_processes():
            if joins:
                init_from_env(always=True)
            ended["result"] = function(rank, folder)
    except UserError as error:
        ended["error"], ended["kind"] = str(error), type(error).__name__
        ended["is_told"], ended["exit_code"] = error.is_told_here, error.exit_code
    (folder / f"ended{rank}.json").write_text(json.dumps(ended))
    os._exit(0)
