"""Runs of the toy task in processes of their own, and what they write."""

import json
import multiprocessing
from typing import NamedTuple

import torch
import toy_training
from safetensors.torch import load_file

from fiber_cli.distributed.launch import free_port

# A clean parent that has imported what takes time, so that its children, the ranks, start at once.
processes = multiprocessing.get_context("forkserver")
IMPORTED = ["fiber_cli.training.fit", "matplotlib.figure", "matplotlib.backends.backend_agg"]
if not torch.cuda.is_available():  # a parent that has touched the GPU must not be forked
    IMPORTED += ["deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer"]
processes.set_forkserver_preload(IMPORTED)

PATIENCE_SECONDS = 120


class Ended(NamedTuple):
    """Exit codes of the ranks and what rank 0 printed."""

    codes: list[int]
    log: str


def start(folder, *, world=1, resume=False, recipe=None, **work):
    """Start the toy run in `folder` on `world` ranks; recipe: dotted setting → value, work: see `toy_training.work`."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    settings = dict(recipe or {})
    settings.setdefault("runtime.micro_batch", toy_training.GLOBAL_BATCH // world)
    options = {"recipe": settings, "work": work, "resume": resume}
    ranks = []
    for rank in range(world):
        env = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        if world > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        arguments = (str(folder), options, env, str(folder / f"log{rank}"))
        ranks.append(processes.Process(target=toy_training.run, args=arguments, daemon=True))
        ranks[-1].start()
    return ranks


def finish(ranks, folder):
    """Wait for a started run."""
    for rank in ranks:
        rank.join(PATIENCE_SECONDS)
    hanging = [rank for rank in ranks if rank.exitcode is None]
    for rank in hanging:
        rank.kill()
    assert not hanging, "a rank hangs"
    return Ended([rank.exitcode for rank in ranks], (folder / "log0").read_text())


def run(folder, **options):
    """A toy run from beginning to end, see `start`."""
    return finish(start(folder, **options), folder)


def weights(folder, step=8):
    return load_file(folder / "checkpoints" / f"step-{step:06d}" / "model.safetensors")


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def assert_equal(ours, theirs, *, atol=0.0, rtol=0.0):
    """That tensors are the same by name, to the bit where no tolerance is given."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=atol, rtol=rtol)


def max_difference(ours, theirs):
    return max((ours[name] - theirs[name]).abs().max() for name in ours)
