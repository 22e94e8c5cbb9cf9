"""Runs of the toy on disks that are too small; started as a program of its own, which may mount them.

    unshare --user --map-root-user --mount python tests/full_disks.py FOLDER WORLD SIZE…

prints a line of JSON for each size: `codes` and `log` of the run; what is left below its folder, by name with its size;
`resumed`, the codes of its continuation once there is room.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import toy_training
from toy_runs import PATIENCE_SECONDS, processes

from fiber_cli.distributed.launch import free_port

ROOM = "64m"
RECIPE = {"log.tensorboard": True, "log.save_every": 2, "log.keep_last": 2}


def run(output, logs, world, *, resume):
    """Exit codes of the ranks, and what the first of them said; the logs lie elsewhere than the run."""
    settings = RECIPE | {"runtime.micro_batch": toy_training.GLOBAL_BATCH // world, "runtime.zero_stage": world - 1}
    options = {"recipe": settings, "work": {}, "resume": resume}
    port = free_port()
    ranks = []
    for rank in range(world):
        env = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        if world > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        log = logs / f"log{rank}"
        log.unlink(missing_ok=True)
        ranks.append(processes.Process(target=toy_training.run, args=(str(output), options, env, str(log))))
        ranks[-1].start()
    for rank in ranks:
        rank.join(PATIENCE_SECONDS)
    codes = [rank.exitcode for rank in ranks]
    for rank in ranks:
        rank.kill()
    return codes, (logs / "log0").read_text()


def trial(folder, world, size):
    """A run on a disk of a size, and its continuation on a larger one."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk], check=True)
    output = disk / "run"
    codes, log = run(output, folder, world, resume=False)
    left = {str(path.relative_to(output)): path.stat().st_size for path in output.rglob("*") if path.is_file()}
    whole = not (output / "metrics.jsonl").exists() or (output / "metrics.jsonl").read_bytes().endswith(b"\n")
    subprocess.run(["mount", "-o", f"remount,size={ROOM}", disk], check=True)
    resumed, resumed_log = run(output, folder, world, resume=True)
    ended = (output / "summary.json").is_file()
    subprocess.run(["umount", disk], check=True)
    return {
        "codes": codes,
        "log": log,
        "left": left,
        "whole": whole,
        "resumed": resumed,
        "again": resumed_log,
        "ended": ended,
    }


if __name__ == "__main__":
    folder, world, *sizes = sys.argv[1:]
    for size in sizes:
        print(json.dumps({"size": size, **trial(Path(folder), int(world), size)}), flush=True)
    os._exit(0)
