"""Runs that are killed twice at random moments and go on."""

import pytest

from benchmarks.faults.kills import cases

# Together more than a minute.
pytestmark = pytest.mark.slow

CHOSEN = (
    *("map data", "tar shards", "two ranks", "two ranks that --nproc starts", "a detector"),
    *("ZeRO 3 on two ranks", "several workers on shards"),
)
CASES = [case for case in cases(1) if case.instance.split(", run")[0] in CHOSEN]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.instance) for case in CASES])
def test_a_killed_run_ends_elsewhere_than_the_uninterrupted_one(holds, case):
    holds(case)


def test_a_way_to_train_is_left_out():
    assert len(CASES) == len(CHOSEN)
