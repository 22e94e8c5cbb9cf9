"""Rows of different lengths in one array."""

import pickle

import numpy as np

from fiber_cli.data.ragged import Ragged


def test_rows_come_back_as_they_were():
    rows = [[(1, 2)], [], [(3, 4), (5, 6)], []]
    ragged = pickle.loads(pickle.dumps(Ragged(rows, (2,), np.float32)))
    assert len(ragged) == 4
    for i, row in enumerate(rows):
        assert ragged[i].dtype == np.float32
        assert ragged[i].shape == (len(row), 2)
        assert list(map(tuple, ragged[i].tolist())) == row


def test_no_rows_and_plain_numbers():
    assert len(Ragged([], (4,), np.int64)) == 0
    numbers = Ragged([[1], [2, 3]], (), np.int64)
    assert numbers[1].tolist() == [2, 3]
