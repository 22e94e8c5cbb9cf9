"""Rows of different lengths in one array."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Ragged:
    """Rows of different lengths in one array, which worker processes share without copying.

    shape: of one value of a row. `ragged[i]` is row i, (its length, *shape); rows are numbered from 0.
    """

    def __init__(self, rows: Sequence[Sequence[Any]], shape: tuple[int, ...], dtype: type[np.generic]):
        self._ends = np.cumsum([len(row) for row in rows])
        values = [value for row in rows for value in row]
        self._values = np.array(values, dtype).reshape(-1, *shape)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> np.ndarray:
        start = self._ends[i - 1] if i else 0
        return self._values[start : self._ends[i]]

    def tobytes(self) -> bytes:
        """All values and where rows end, as bytes."""
        return self._ends.tobytes() + self._values.tobytes()
