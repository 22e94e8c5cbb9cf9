"""What it costs to start the workers that read data: forked from a process alone, and from the fork server of a rank.

    python -m benchmarks.worker_starts
    python -m benchmarks.worker_starts --recipe tiny_fine --workers 4 --json starts.json

Seconds from asking the training's loader for its first batch to having it, for so many loaders one after another, and
what a worker then has of memory for itself alone (Uss); processor seconds and memory of the server, which is begun once
and is waited for here before the first loader. Linux only: memory is what /proc says.
"""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.box_reading import own_memory
from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.data.workers import prepare_workers, start_method
from fiber_cli.distributed.group import init_from_env, leave
from fiber_cli.training.work import Work, work

LOADERS = 4


def parent_of(process: int) -> int:
    """The process that forked another."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def processor_seconds(process: int) -> float:
    """Of all that a process has done."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def starts(planned: Work) -> dict[str, Any]:
    """Of the loaders of a training."""
    seconds = []
    for _ in range(LOADERS):
        began = time.perf_counter()
        batches = planned.batches(0)
        next(batches)
        seconds.append(time.perf_counter() - began)
        workers = [worker.pid for worker in multiprocessing.active_children() if worker.pid is not None]
        memory = [own_memory(worker)["uss_mib"] for worker in workers]
        parent = parent_of(workers[0])
        batches.close()
    measured = {"method": start_method(), "first_batch_seconds": seconds, "worker_mib": max(memory)}
    if parent == os.getpid():
        return measured
    return measured | {"server_seconds": processor_seconds(parent), "server_mib": own_memory(parent)["uss_mib"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    planned = work(resolve_recipe(options.recipe, [f"data.workers={options.workers}"]))
    figures = {"alone": starts(planned)}
    init_from_env(always=True)
    prepare_workers(options.workers)
    time.sleep(5)  # as a training makes its model meanwhile
    figures["group"] = starts(planned)
    leave()
    for where, of_one in figures.items():
        shown = " ".join(f"{each:.2f}" for each in of_one["first_batch_seconds"])
        line = f"{where}, {of_one['method']}: first batch after {shown} s; {of_one['worker_mib']:.0f} MiB a worker"
        if "server_mib" in of_one:
            line += f"; server {of_one['server_seconds']:.2f} processor seconds, {of_one['server_mib']:.0f} MiB"
        print(line)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
