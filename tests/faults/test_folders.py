"""One run, one folder."""

import pytest

from benchmarks.faults.folders import cases

# Together more than a minute.
pytestmark = pytest.mark.slow

#: Not tried here, because others of their kind are: each starts a process from nothing.
LEFT_OUT = (
    *("a second run in the folder, from the start", "a second run in the folder, with two ranks"),
    *("the output folder is renamed in the middle", "the output folder is checkpoints removed in the middle"),
)
CASES = [case for case in cases() if case.instance not in LEFT_OUT]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.instance) for case in CASES])
def test_a_run_does_not_have_its_folder_for_itself(holds, case):
    holds(case)
