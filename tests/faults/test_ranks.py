"""Ranks that differ, ranks that die, signals at any time."""

import pytest

from benchmarks.faults.ranks import cases

# Together more than a minute.
pytestmark = pytest.mark.slow

CHOSEN = (
    *("ranks differ in shards", "ranks differ in captions of the same number", "ranks differ in a seed"),
    *("ranks differ in an output folder", "ranks differ in a checkpoint to begin with"),
    *("ranks differ in one without data", "ranks differ in one that resumes"),
    *("rank 1 is ended by SIGKILL", "rank 0 is ended by SIGSEGV", "SIGHUP to the launcher saves"),
    *("SIGTERM after 0.3 s, during imports", "SIGINT after 2.5 s, during imports"),
    *("the variables of salloc, without srun", "the variables of sbatch, without srun"),
)
CASES = [case for case in cases() if case.instance in CHOSEN]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.instance) for case in CASES])
def test_ranks_train_on_without_each_other(holds, case):
    holds(case)


def test_a_trial_is_left_out():
    assert len(CASES) == len(CHOSEN)
