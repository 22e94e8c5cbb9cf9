"""Outputs of every verb that writes, over what they must spare."""

import pytest

from benchmarks.faults.kinds import spread
from benchmarks.faults.outputs import OUTPUTS, cases

#: All of these, of every output; of the rest some.
ALWAYS = (
    *("over the input itself", "over the input through a hard link with --force"),
    *("over a user's file", "over a user's file with --force"),
)


def chosen():
    always = [case for case in cases() if case.instance.endswith(ALWAYS)]
    return always + spread([case for case in cases() if case not in always], 30)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.instance) for case in chosen()])
def test_an_output_replaces_what_it_must_spare(holds, case):
    holds(case)


def test_an_output_is_left_out():
    for output in OUTPUTS:
        of_output = [case for case in chosen() if case.instance.startswith(f"{output.what} over")]
        assert len(of_output) >= len(ALWAYS)
