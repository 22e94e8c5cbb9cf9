"""Tasks, a set, its scores computed the plain way, and what two ranks make of it."""

from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from small_retrieval import make_set, make_task, plain_scores, score_and_retrieve_on_rank, score_until_killed

from fiber_cli.distributed.launch import free_port


@pytest.fixture(scope="package")
def task():
    """Scores pairs."""
    return make_task()


@pytest.fixture(scope="package")
def itc_task():
    """A dual encoder."""
    return make_task(seed=4)


@pytest.fixture(scope="package")
def evalset():
    return make_set()


@pytest.fixture(scope="package")
def expected(task, evalset):
    """Scores (images, texts) of `task`, every pair from its pixels."""
    scores = plain_scores(task, evalset)
    assert scores.std() > 1e-2  # else a comparison would say little
    return scores


@pytest.fixture(scope="package")
def two_ranks(task, tmp_path_factory):
    """What `score_and_retrieve_on_rank` saves on each rank, going on from what one process left; `folder` held the
    scores."""
    folder = tmp_path_factory.mktemp("ranks")
    score_until_killed(task, make_set(holes=(4,)), folder, pytest.MonkeyPatch(), 6, fingerprint="a")
    mp.start_processes(score_and_retrieve_on_rank, args=(free_port(), folder), nprocs=2, start_method="spawn")
    ranks = [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]
    return SimpleNamespace(folder=folder, ranks=ranks)
