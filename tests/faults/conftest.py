"""The bench of the campaign, which benchmarks/faults/ describes."""

import pytest

from benchmarks.faults.bench import bench as open_bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """A process that runs command lines, and tiny checkpoints and files that are made when they are needed."""
    with open_bench(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.fixture
def holds(bench):
    """Makes a trial, and fails with what did not hold."""

    def check(case):
        trial = case.trial(bench)
        assert trial.problem is None, trial.line()

    return check
