"""Neighbours are of like shapes, so that batches of them are padded little."""

import numpy as np

from fiber_cli.data.shapes import order_by_shape


def test_what_lies_what_stands_and_what_is_unknown_are_mixed():
    sizes = [(30, 20), None, (20, 30), (10, 20), (40, 30), (20, 20), None, (40, 60)]
    assert order_by_shape(sizes).tolist() == [7, 2, 5, 3, 0, 4, 1, 6]


def test_pictures_of_one_size_change_places():
    assert order_by_shape([(20, 30)] * 5).tolist() == [0, 1, 2, 3, 4]
    assert order_by_shape([]).tolist() == []


def padded_area(sizes, micro_batch):
    area = 0
    for start in range(0, len(sizes), micro_batch):
        heights, widths = zip(*sizes[start : start + micro_batch], strict=True)
        area += len(heights) * max(heights) * max(widths)
    return area


def test_more_is_padded_than_in_any_order():
    """Photographs of four shapes at five scales, as detectors are trained with."""
    rng = np.random.default_rng(0)
    shapes = np.array([(3, 4), (2, 3), (4, 3), (3, 2)])
    for micro_batch, most in ((2, 1.1), (4, 1.2), (8, 1.25)):
        as_they_come = ordered = own = 0
        for _ in range(20):
            scales = rng.choice([160, 190, 210, 240, 270], 64)
            sizes = [tuple(size) for size in (shapes[rng.integers(4, size=64)] * scales[:, None]).tolist()]
            own += padded_area(sizes, 1)
            as_they_come += padded_area(sizes, micro_batch)
            ordered += padded_area([sizes[i] for i in order_by_shape(sizes)], micro_batch)
        assert ordered / own < most
        assert as_they_come / own > most + 0.15
