"""Files of checkpoints in which one bit is another, or that are cut, emptied, removed or exchanged."""

import pytest

from benchmarks.faults.bits import USES, cases
from benchmarks.faults.kinds import spread

# Together more than a minute.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("use", [use.what for use in USES])
def test_a_flipped_bit_in_a_file_of_a_checkpoint_is_taken(bench, use):
    flips = [case for case in cases(bench, 1) if case.instance.startswith(f"{use}: bit ")]
    assert len(flips) >= 7, "config.json, model.safetensors, two files of the tokeniser, three of the state"
    check(bench, flips)


@pytest.mark.parametrize("use", [use.what for use in USES])
def test_a_file_that_is_cut_emptied_removed_or_exchanged_is_taken(bench, use):
    harms = [case for case in cases(bench, 1) if case.instance.startswith(f"{use}: ") and ": bit " not in case.instance]
    check(bench, spread(harms, 6))


def check(bench, chosen):
    trials = [case.trial(bench) for case in chosen]
    problems = [trial.line() for trial in trials if trial.problem]
    assert not problems, "\n".join(problems)
