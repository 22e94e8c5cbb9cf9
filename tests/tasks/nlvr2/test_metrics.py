"""Accuracy and consistency by hand."""

import pytest

from fiber_cli.tasks.nlvr2.metrics import accuracies


def test_accuracy_and_consistency_by_hand():
    """Groups a: both right; b: one of two wrong; c: its only one wrong. 3 of 5 right, 1 of 3 groups; 4 of 5 true."""
    labels = [True, True, False, True, True]
    said = [True, True, False, False, False]
    metrics = accuracies(said, labels, ["a", "b", "a", "b", "c"])
    assert metrics == pytest.approx({"nlvr2/accuracy": 60, "nlvr2/consistency": 100 / 3, "nlvr2/majority": 80})
    assert accuracies([False], [False], ["x"]) == dict.fromkeys(metrics, 100)
    assert accuracies([], [], []) == {}


def test_types_of_statements_are_counted_apart_and_those_without_one_are_not():
    metrics = accuracies([True, True, False], [True, False, False], ["a", "b", "c"], ["count", "count", None])
    assert metrics["nlvr2/statement/count"] == 50
    assert [name for name in metrics if name.startswith("nlvr2/statement/")] == ["nlvr2/statement/count"]
