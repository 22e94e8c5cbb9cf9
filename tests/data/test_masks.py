"""Boxes of masks."""

import numpy as np
import pytest
from pycocotools import mask

from fiber_cli.data.masks import mask_box


def pixels():
    """A mask of rows 5 to 24 and columns 12 to 31 of 40 rows and 60 columns, with a hole."""
    drawn = np.zeros((40, 60), np.uint8, order="F")
    drawn[5:25, 12:32] = 1
    drawn[10:12, 15:20] = 0
    return drawn


def run_lengths():
    flat = pixels().flatten(order="F").tolist()
    counts, value = [0], 0
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": [40, 60], "counts": counts}


def test_the_box_of_run_lengths_is_another():
    assert mask_box(run_lengths(), (40, 60)) == (12, 5, 20, 20)
    as_text = {"size": ["40", 60], "counts": list(map(str, run_lengths()["counts"]))}
    assert mask_box(as_text, None) == (12, 5, 20, 20)


def test_the_box_of_compressed_run_lengths_is_another():
    encoded = mask.encode(pixels())
    assert mask_box({"size": [40, 60], "counts": encoded["counts"].decode()}, None) == (12, 5, 20, 20)


@pytest.mark.parametrize("size", [(80, 100), None])
def test_the_box_of_polygons_is_another(size):
    square = [10, 10, 40, 10, 40, 40, 10, 40]
    assert mask_box([square], size) == (10, 10, 30, 30)
    assert mask_box([square, [50, 5, "60", 5, 60, 20, 50, 20]], size) == (10, 5, 50, 35)


@pytest.mark.parametrize(
    "wrong",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [["a"] * 6],
        [3],
        {"size": [40, 60]},
        {"counts": [1, 2]},
        {"size": [40, 60], "counts": [10, -5, 3]},
        {"size": [2, 2], "counts": [1, 20]},
        {"size": [0, 60], "counts": [0]},
        {"size": [40, 60], "counts": []},
        "mask",
        7,
    ],
)
def test_what_is_no_mask_gets_a_box(wrong):
    with pytest.raises((LookupError, TypeError, ValueError)):
        mask_box(wrong, (40, 60))
