"""What a user may give as pictures and texts."""

import numpy as np
import pytest
from PIL import Image

from fiber_cli.errors import UserError
from fiber_cli.inference.pictures import batches, distinct_images, find_images, pictures_of, read_picture, texts_of


def test_one_picture_is_told_from_several(readable):
    array = np.zeros((4, 5, 3), np.uint8)
    opened = Image.open(readable[0])
    for one in (str(readable[0]), readable[0], opened, array):
        (picture,), single = pictures_of(one)
        assert picture is one
        assert single
    for several in (readable, tuple(readable), np.stack([array, array]), [array], (str(path) for path in readable)):
        pictures, single = pictures_of(several)
        assert not single
        assert isinstance(pictures, list)
        assert len(pictures) in (1, 2, 3)
    assert texts_of("a star") == (["a star"], True)
    assert texts_of(("a star",)) == (["a star"], False)
    for empty in (pictures_of, texts_of):
        with pytest.raises(UserError, match="no input"):
            empty([])


def test_every_picture_becomes_rgb_or_is_told(pictures, readable):
    assert read_picture(Image.new("L", (3, 2))).mode == "RGB"
    array = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert (np.asarray(read_picture(array)) == array).all()
    assert read_picture(str(readable[1])).size == (150, 40)
    for bad, message in (
        (pictures / "broken.jpg", "broken.jpg: not a readable image"),
        ("nowhere.png", "nowhere.png: no such file"),
        (np.zeros((4, 4, 3)), "ndarray: an array of float64 .* wanted is uint8 RGB"),
        (np.zeros((4, 4), np.uint8), "wanted is uint8 RGB"),
        (Image.new("F", (2, 2)), "floating-point pixels"),
    ):
        with pytest.raises(UserError, match=message):
            read_picture(bad)


def test_folders_are_searched_for_images_and_files_taken_as_they_are(pictures, readable, tmp_path):
    a, b, below = readable
    assert find_images([pictures]) == [a, b, pictures / "broken.jpg", below]
    assert find_images([pictures / "notes.txt", a]) == [pictures / "notes.txt", a]
    assert distinct_images([b, pictures, b]) == [b, a, pictures / "broken.jpg", below]
    with pytest.raises(UserError, match="no image files below this folder"):
        find_images([tmp_path])
    with pytest.raises(UserError, match="no such file or folder"):
        find_images([tmp_path / "none"])


def test_batches_read_no_further_than_they_give():
    read = []
    numbers = (read.append(number) or number for number in range(5))
    given = batches(numbers, 2)
    assert next(given) == [0, 1]
    assert read == [0, 1]
    assert list(given) == [[2, 3], [4]]
