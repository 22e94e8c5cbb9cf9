"""Bad inputs over all verbs, 220 of those that `python -m benchmarks.faults --only inputs` tries."""

import pytest

from benchmarks.faults.inputs import cases
from benchmarks.faults.kinds import Case, spread

CASES = cases()
NUMBER = 220
VERBS = (
    *("pretrain", "finetune", "eval", "rerank", "caption", "answer", "detect"),
    *(
        "vqa-answers",
        "cider-df",
        "convert",
        "odinw",
        "few-shot",
        "recipes",
        "models",
        "ablate",
        "table",
        "scenes",
        "data",
    ),
)


def _verb(case: Case) -> str:
    return case.instance.split()[0].rstrip(":")


def _tried() -> list[Case]:
    """So many at even distances, and the first of a verb that has none among them."""
    chosen = spread(CASES, NUMBER)
    left_out = set(VERBS).difference(map(_verb, chosen))
    for case in CASES:
        if _verb(case) in left_out:
            left_out.remove(_verb(case))
            chosen.append(case)
    return chosen


TRIED = _tried()


@pytest.mark.parametrize("case", [pytest.param(case, id=case.instance) for case in TRIED])
def test_a_bad_input_hangs_ends_in_a_traceback_is_taken_or_leaves_something(holds, case):
    holds(case)


def test_a_verb_is_left_out():
    assert set(VERBS) <= set(map(_verb, TRIED))


def test_two_inputs_are_the_same():
    assert len({case.instance for case in CASES}) == len(CASES)
