"""Columns give back what they were made of, and lie in a file for all processes."""

import pickle

import numpy as np
import pytest

from fiber_cli.data.columns import Coded, Identifiers, MappedArray, OptionalTexts, Sizes, Texts, map_array

VALUES = [
    (Texts, ["", "a", "é\0😀", "caf\udce9", "\ud83d"]),
    (OptionalTexts, [None, "", "=x", None]),
    (Identifiers, [7, "007", None, -3, 10**30, "a b"]),
    (Sizes, [(3, 4), None, (1, 1_000_000)]),
    (Coded, ["yes", "no", "yes", ""]),
]


@pytest.mark.parametrize(("column", "values"), VALUES)
def test_values_come_back_as_others(column, values):
    made = column(iter(values))
    for each in (made, pickle.loads(pickle.dumps(made))):
        assert list(each) == values
        assert [each[i] for i in range(len(values))] == values
        assert each == values
        assert each[-1] == values[-1]
        assert each[::2] == values[::2]
        assert values[0] in each
        with pytest.raises(IndexError):
            each[len(values)]
    assert list(column([])) == []


def test_more_texts_than_are_decoded_at_once():
    texts = [str(number) * (number % 7) for number in range(10_000)]
    assert list(Texts(texts)) == texts


def test_an_array_in_a_file_is_copied_to_other_processes(tmp_path):
    numbers = np.arange(100_000)
    numbers.tofile(tmp_path / "a")
    mapped = map_array(tmp_path / "a", "<i8", (100_000,), 0)
    copied = pickle.dumps(mapped)
    assert len(copied) < 1000
    again = pickle.loads(copied)
    assert isinstance(again, MappedArray)
    assert np.array_equal(again, numbers)
    assert np.array_equal(pickle.loads(pickle.dumps(mapped[10:20])), numbers[10:20])
    with pytest.raises(ValueError, match="greater than file size"):
        map_array(tmp_path / "a", "<i8", (100_001,), 0)
