"""Pictures of like shapes together: a batch is padded to the highest and the widest of its pictures."""

from collections.abc import Sequence

import numpy as np

from fiber_cli.data.records import Size


def order_by_shape(sizes: Sequence[Size | None]) -> np.ndarray:
    """int64 (n,): an order of pictures, given by their (height, width), in which neighbours are of like shapes.

    Lying ones come first, from the largest to the smallest, then standing ones from the smallest, and last those whose
    size is not known; equal ones stay in their order. So what lies and what stands meet where both are small.
    """
    return np.array(sorted(range(len(sizes)), key=lambda i: _rank(sizes[i])), np.int64)


def _rank(size: Size | None) -> tuple[int, int]:
    if size is None:
        return 2, 0
    height, width = size
    if height > width:
        return 1, height * width
    return 0, -height * width
