"""What a user may give as pictures and texts."""

import io
import zipfile
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from image_files import encoded, photograph
from PIL import Image

from fiber_cli.errors import UserError
from fiber_cli.inference.pictures import batches, pictures_of, read_picture, texts_of


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
        (np.zeros((4, 4, 3)), "ndarray: an array of float64 .* wanted is uint8"),
        (np.zeros((3, 4, 5), np.uint8), "height, width, channels"),
        (np.zeros((0, 4, 3), np.uint8), "wanted is uint8"),
        (torch.rand(3, 4, 5), r"Tensor: a tensor of torch.float32 \(3, 4, 5\); wanted is torch.uint8"),
        (torch.zeros(6, 5, 3, dtype=torch.uint8), "channels, height, width"),
        (b"<html>404</html>", "bytes: not a readable image"),
        ("s3://bucket/cat.jpg", "an address by s3"),
        ("data:image/png;base64,iVBORw0KGgo=", "not a readable image"),
        ("", "an empty path"),
        (pictures, "a folder"),
        (None, "NoneType: no picture; wanted is a path"),
        (7, "int: no picture"),
        (Image.new("F", (2, 2)), "floating-point pixels"),
    ):
        with pytest.raises(UserError, match=message):
            read_picture(bad)


def test_every_form_of_a_picture_gives_its_pixels(readable, tmp_path):
    file = readable[1]
    expected = np.asarray(Image.open(file).convert("RGB"))
    content = file.read_bytes()
    used_up = io.BytesIO(content)
    used_up.read()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.jpg", content)
    with open(file, "rb") as opened, zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("b.jpg") as inside:
        for form in (
            content,
            bytearray(content),
            memoryview(content),
            opened,
            io.BytesIO(content),
            used_up,
            inside,
            urlopen(file.as_uri()),
            OnlyRead(content),
            str(file),
            file,
            expected,
            torch.tensor(expected).permute(2, 0, 1),
            Image.open(file),
        ):
            (picture,), single = pictures_of(form)
            assert single, form
            for _ in range(2):  # a stream has its content only once
                assert (np.asarray(read_picture(picture)) == expected).all(), form


class OnlyRead:
    """A stream that cannot go back, as of a network."""

    def __init__(self, content):
        self.content = io.BytesIO(content)

    def read(self, size=-1):
        return self.content.read(size)


def test_grey_and_transparent_pixels_become_rgb():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    expected = np.stack([grey] * 3, axis=2)
    for form in (grey, grey[:, :, None], torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        assert (np.asarray(read_picture(form)) == expected).all()
    clear = np.zeros((2, 3, 4), np.uint8)
    clear[0, 0] = 10, 20, 30, 255
    expected = np.full((2, 3, 3), 255, np.uint8)
    expected[0, 0] = 10, 20, 30
    for form in (clear, torch.from_numpy(clear).permute(2, 0, 1), Image.fromarray(clear)):
        assert (np.asarray(read_picture(form)) == expected).all()


def test_stacks_are_lists():
    array = np.zeros((2, 4, 5, 3), np.uint8)
    for stack in (array, torch.from_numpy(array).permute(0, 3, 1, 2)):
        pictures, single = pictures_of(stack)
        assert not single
        assert [read_picture(picture).size for picture in pictures] == [(5, 4)] * 2


def test_what_is_no_picture_at_all_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("no picture")
    for nothing in (None, 7, {"a.png": 1}):
        with pytest.raises(UserError, match=r"images=.* wanted is a path"):
            pictures_of(nothing)
    with open(tmp_path / "a.txt", encoding="utf-8") as as_text:
        (picture,), _ = pictures_of(as_text)
    with pytest.raises(UserError, match=r'opened as text.* mode "rb"'):
        read_picture(picture)
    (picture,), _ = pictures_of(as_text)  # closed
    with pytest.raises(UserError, match="an open file that cannot be read"):
        read_picture(picture)
    truncated = Image.open(io.BytesIO(encoded(photograph(), "JPEG")[:900]))
    with pytest.raises(UserError, match="not a readable image"):
        read_picture(truncated)


def test_batches_read_no_further_than_they_give():
    read = []
    numbers = (read.append(number) or number for number in range(5))
    given = batches(numbers, 2)
    assert next(given) == [0, 1]
    assert read == [0, 1]
    assert list(given) == [[2, 3], [4]]
