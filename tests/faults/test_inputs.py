"""Bad inputs over all verbs, 220 of those that `python -m benchmarks.faults --only inputs` tries."""

import pytest

from benchmarks.faults.inputs import cases
from benchmarks.faults.kinds import spread

CASES = cases()
VERBS = (
    *("pretrain", "finetune", "eval", "rerank", "caption", "answer", "detect"),
    *("vqa-answers", "cider-df", "convert", "odinw", "few-shot", "recipes"),
)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.instance) for case in spread(CASES, 220)])
def test_a_bad_input_hangs_ends_in_a_traceback_is_taken_or_leaves_something(holds, case):
    holds(case)


def test_a_verb_is_left_out():
    tried = {case.instance.split()[0].rstrip(":") for case in spread(CASES, 220)}
    assert set(VERBS) <= tried


def test_two_inputs_are_the_same():
    assert len({case.instance for case in CASES}) == len(CASES)
