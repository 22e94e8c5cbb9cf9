"""Boxes of masks."""

import numpy as np
import pytest
from pycocotools import mask

from fiber_cli.data.masks import mask_box, runs_of_text


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


def lengths_of(drawn):
    """Run lengths of a mask, without pycocotools."""
    flat = np.concatenate([[0], drawn.flatten(order="F"), [2]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], ends])).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_as_text_are_others(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 300, 2)
    # Of single pixels as of large areas: short and long runs, and differences of both signs.
    blocks = rng.random(np.maximum(1, shape // rng.integers(1, 60))) < rng.random()
    drawn = np.asfortranarray(np.kron(blocks, np.ones(shape // blocks.shape))).astype(np.uint8)
    encoded = mask.encode(np.asfortranarray(drawn))
    lengths = runs_of_text(encoded["counts"].decode())
    assert sum(lengths) == drawn.size
    assert lengths == lengths_of(drawn)
    rows, columns = np.nonzero(drawn)
    if len(rows):
        box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        segmentation = {"size": list(drawn.shape), "counts": encoded["counts"].decode()}
        assert mask_box(segmentation, drawn.shape) == box


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": [100, 80]}, r"size of the segmentation is \[100, 80\], height and width of its image \[80, 100\]"),
        ({"size": [40, 50]}, r"size of the segmentation is \[40, 50\]"),
        ({"size": "80"}, "size of the segmentation must be a list"),
        ({"more": "0"}, "pixels, its size has 8000"),
        ({"more": "1"}, "pixels, its size has 8000"),
        ({"more": "o"}, "end within a number"),
        ({"counts": "zzzz~~~"}, "the character 'z'"),
        ({"counts": "é"}, "the character 'é'"),
        ({"counts": ""}, "lengths of 0 or more"),
        ({"counts": "O1"}, "lengths of 0 or more"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_mask_of_another_image_or_no_mask_gets_a_box(change, said, seed):
    x, y, width, height = np.random.default_rng(seed).integers(5, 40, 4)
    drawn = np.zeros((80, 100), np.uint8, order="F")
    drawn[y : y + height, x : x + width] = 1
    segmentation = {"size": [80, 100], "counts": mask.encode(drawn)["counts"].decode()}
    assert mask_box(segmentation, (80, 100)) == (x, y, width, height)
    wrong = segmentation | change
    wrong["counts"] += wrong.pop("more", "")
    with pytest.raises((TypeError, ValueError), match=said):
        mask_box(wrong, (80, 100))


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
        {"size": [40, 60], "counts": [10, 20]},
        {"size": [40, 60], "counts": [1200, 1201]},
        {"size": [60, 40], "counts": [1200, 1200]},
        {"size": [40, 60], "counts": {"1200": 1200}},
        ["123456"],
        {"size": [0, 60], "counts": [0]},
        {"size": [40, 60], "counts": []},
        "mask",
        7,
    ],
)
def test_what_is_no_mask_gets_a_box(wrong):
    with pytest.raises((LookupError, TypeError, ValueError)):
        mask_box(wrong, (40, 60))


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": [10**30, 60], "counts": [5]},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": [2**33, 1], "counts": [2**33]},
        {"size": [-40, -60], "counts": [2400]},
        {"size": [40, 60], "counts": "o" * 100_000},
        {"size": [40, 60], "counts": "oooooooooooooo0"},
        [[0, 0, 1e9, 0, 1e9, 1e9]],
        [[-1e300, 0, 5, 5, 9, 0]],
        [[0, 0, 9e5, 0, 9e5, 9e5, 0, 9e5]],
        [[1e400, 0, 5, 5, 9, 0]],
        [[0, 0, 5, float("nan"), 9, 0]],
        [[10**400, 0, 5, 5, 9, 0]],
    ],
)
@pytest.mark.parametrize("size", [None, (40, 60)])
def test_sizes_of_no_image_are_not_drawn(wrong, size):
    with pytest.raises((LookupError, TypeError, ValueError)):
        mask_box(wrong, size)
