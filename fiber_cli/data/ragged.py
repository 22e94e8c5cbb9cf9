"""Rows of different lengths in one array."""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

#: Values that become an array at a time.
_BLOCK = 1 << 16


class Ragged:
    """Rows of different lengths in one array, which worker processes share without copying.

    shape: of one value of a row. `ragged[i]` is row i, (its length, *shape), the caller's own; rows are numbered from
    0.
    """

    def __init__(self, rows: Iterable[Sequence[Any] | np.ndarray], shape: tuple[int, ...], dtype: type[np.generic]):
        ends = array("q")
        blocks = [np.empty((0, *shape), dtype)]
        pending: list[Any] = []
        count = 0
        for row in rows:
            count += len(row)
            ends.append(count)
            pending.extend(row)
            if len(pending) >= _BLOCK:
                blocks.append(np.array(pending, dtype).reshape(-1, *shape))
                pending = []
        blocks.append(np.array(pending, dtype).reshape(-1, *shape))
        self._ends = np.array(ends, np.int64)
        self._values = np.concatenate(blocks)

    @classmethod
    def of(cls, ends: np.ndarray, values: np.ndarray) -> "Ragged":
        """Of the values of all rows, and where each row ends among them."""
        ragged = cls.__new__(cls)
        ragged._ends, ragged._values = ends, values
        return ragged

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> np.ndarray:
        start = self._ends[i - 1] if i else 0
        return np.array(self._values[start : self._ends[i]], subok=False)

    @property
    def values(self) -> np.ndarray:
        """Of all rows."""
        return self._values

    def take(self, rows: Sequence[int] | np.ndarray) -> "Ragged":
        """These rows, in this order."""
        chosen = np.asarray(rows, np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), self._ends])[chosen]
        lengths = self._ends[chosen] - starts
        ends = np.cumsum(lengths)
        # The place of every value: those of a row follow one another from where it starts.
        places = np.arange(int(lengths.sum())) + np.repeat(starts - (ends - lengths), lengths)
        return Ragged.of(ends, self._values[places])

    def tobytes(self) -> bytes:
        """All values and where rows end, as bytes."""
        return self._ends.tobytes() + self._values.tobytes()
