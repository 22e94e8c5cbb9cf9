"""Means over sets and seeds, worked out by hand."""

import pytest

from fiber_cli.evaluation.odinw_table import OdinwAp, odinw_summary, odinw_table

RESULTS = [
    OdinwAp("Raccoon", 0, None, 60.0),
    OdinwAp("pothole", 0, None, 30.0),
    OdinwAp("Raccoon", 1, 3, 40.0),
    OdinwAp("pothole", 1, 3, 10.0),
    OdinwAp("Raccoon", 1, 30, 44.0),
    OdinwAp("pothole", 1, 30, 20.0),
]


def test_means_are_other_numbers():
    summary = odinw_summary(RESULTS)
    assert summary["mean"]["full"] == {"ap": 45.0, "std": 0.0, "seeds": 1}
    # Sets first, 25 and 32, then seeds.
    assert summary["mean"]["1"] == {"ap": pytest.approx(28.5), "std": pytest.approx(3.5), "seeds": 2}
    assert summary["sets"]["Raccoon"]["1"] == {"ap": 42.0, "std": 2.0, "seeds": 2}
    assert len(summary["runs"]) == 6


def test_a_mean_of_some_sets_stands_beside_means_of_all():
    some = [*RESULTS, OdinwAp("pothole", 3, 3, 90.0), OdinwAp("pothole", 5, 3, 80.0), OdinwAp("Raccoon", 5, 30, 80.0)]
    assert set(odinw_summary(some)["mean"]) == {"full", "1"}
    assert set(odinw_summary(some)["sets"]["pothole"]) == {"full", "1", "3", "5"}
    last = odinw_table(some).splitlines()[-1]
    assert last.split() == ["mean", "of", "2", "45.0", "28.5", "±", "3.5", "-", "-"]


def test_the_table_lacks_a_mean_or_a_spread():
    lines = [line.split() for line in odinw_table(RESULTS).splitlines()]
    assert lines == [
        ["AP", "full", "1", "shot"],
        ["Raccoon", "60.0", "42.0", "±", "2.0"],
        ["pothole", "30.0", "15.0", "±", "5.0"],
        ["mean", "of", "2", "45.0", "28.5", "±", "3.5"],
    ]
