"""How the processes that read data are started: forked, where that is safe, else sent what they need."""

import multiprocessing
import sys
from multiprocessing.context import BaseContext

import torch.distributed as td

from fiber_cli.data.worker_process import SpawnedWorkers

if sys.platform != "win32":
    from fiber_cli.data.fork_server import ForkedWorkers, run_server


def start_method() -> str:
    """How workers of this process are started. Forked in a process without a group, where that is the usual way, which
    it is on Linux before Python 3.14, as it takes no time and no memory; in a group by "forkserver", which see. "spawn"
    stays where it is usual, and so does what somebody has chosen."""
    usual = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if usual == "fork" and td.is_initialized():
        return "forkserver"
    return usual


def worker_context() -> BaseContext:
    """What a loader starts its workers with. UserError where that cannot be begun."""
    method = start_method()
    if method == "fork":
        return multiprocessing.get_context("fork")
    if sys.platform == "win32" or method == "spawn":
        return SpawnedWorkers()
    run_server()  # before a queue starts the tracker of resources, which is to be silent
    return ForkedWorkers()


def prepare_workers(count: int) -> None:
    """Begin what `count` workers will come from, where that takes time, so that it is ready when they are wanted. What
    they need should be imported before."""
    if sys.platform != "win32" and count and start_method() == "forkserver":
        run_server()
