"""Which threshold is for a text."""

import math

import pytest

from fiber_cli.tasks.thresholds import Threshold, Thresholds

QUERIES, CAPTIONS = Threshold(1.0, 2, 4), Threshold(2.0, 9, 12)


@pytest.mark.parametrize(
    ("words", "least"),
    [(1, None), (2, 1), (4, 1), (6, 1), (7, 2), (9, 2), (12, 2), (13, None)],
)
def test_a_text_is_judged_by_a_threshold_of_other_lengths(words, least):
    """Between two ranges by that of the nearer one, outside of all by none."""
    text = " ".join(["word"] * words)
    assert Thresholds.of(QUERIES, CAPTIONS).least(text) == least
    assert Thresholds.of(CAPTIONS, QUERIES).least(text) == least


def test_one_threshold_or_none_tells_of_other_lengths_than_its_own():
    alone = Thresholds.of(None, QUERIES)
    assert (alone.least("one"), alone.least("two words"), alone.least("now there are five words")) == (None, 1, None)
    assert Thresholds.of(None).least("two words") is None
    assert Thresholds.of(Threshold(3.0, 0, math.inf)).least("") == 3


def test_where_two_are_for_a_text_the_second_is_taken():
    both = Thresholds.of(QUERIES, Threshold(2.0, 3, 12))
    assert (both.least("two words"), both.least("now three words"), both.of_longest) == (1, 1, 2)
    assert Thresholds().of_longest is None
