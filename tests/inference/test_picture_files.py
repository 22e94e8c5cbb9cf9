"""Which picture files are found by the paths that a user gives."""

import os
from pathlib import Path

import pytest
from PIL import Image

from fiber_cli.data.images import readable_formats
from fiber_cli.errors import UserError
from fiber_cli.inference.picture_files import distinct_images, find_images
from fiber_cli.inference.pictures import read_picture


def test_every_ending_of_the_table_is_found_and_read(tmp_path):
    for suffix in (".jpg", ".JPEG", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".ppm", ".avif"):
        kind = {".JPEG": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG"}.get(suffix)
        if suffix != ".avif" or "AVIF" in readable_formats():
            Image.new("RGB", (8, 6), "red").save(tmp_path / f"a{suffix}", kind)
    found = find_images([tmp_path])
    assert len(found) >= 10
    assert all(read_picture(file).size == (8, 6) for file in found)


def test_pictures_that_are_not_read_are_counted(tmp_path, capsys):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC", "d.jp2", "e.txt", "f.mp4"):
        (tmp_path / name).write_bytes(b"something")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert find_images([tmp_path]) == [tmp_path / "a.png"]
    err = capsys.readouterr().err
    assert "3 files of formats that are not read (.heic 2, .jp2 1); read are .jpg" in err
    assert "gone.jpg: a link to nothing" in err
    assert "1 videos (.mp4 1)" in err
    with pytest.raises(UserError, match=r"b\.heic: not a readable image"):
        read_picture(tmp_path / "b.heic")
    (tmp_path / "b.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(UserError, match="HEIC is not among the formats read"):
        read_picture(tmp_path / "b.heic")


def test_links_to_folders_are_followed_once(tmp_path):
    outside = tmp_path / "outside"
    folder = tmp_path / "pictures"
    for place in (outside / "deep", folder / "real"):
        place.mkdir(parents=True)
    for file in (outside / "a.png", outside / "deep" / "b.png", folder / "real" / "c.png"):
        Image.new("RGB", (4, 4)).save(file)
    (folder / "again").symlink_to(outside / "deep")  # also below the next one
    (folder / "link").symlink_to(outside)
    (folder / "real" / "up").symlink_to(folder)  # a circle
    (folder / "another").symlink_to(folder / "real")
    (outside / "deep" / "self").symlink_to(outside)
    found = find_images([folder])
    assert sorted(file.name for file in found) == ["a.png", "b.png", "c.png"]
    assert folder / "real" / "c.png" in found  # by its own path, not by a link's
    to_folder = tmp_path / "entrance"
    to_folder.symlink_to(folder)
    assert len(find_images([to_folder])) == 3


def test_folders_are_searched_for_images_and_files_taken_as_they_are(pictures, readable, tmp_path):
    a, b, below = readable
    assert find_images([pictures]) == [a, b, pictures / "broken.jpg", below]
    assert find_images([pictures / "notes.txt", a]) == [pictures / "notes.txt", a]
    assert distinct_images([b, pictures, b]) == [b, a, pictures / "broken.jpg", below]
    with pytest.raises(UserError, match="no image files below this folder"):
        find_images([tmp_path])
    with pytest.raises(UserError, match="a URL; download it"):
        find_images([Path("https://example.org/a.jpg")])
    with pytest.raises(UserError, match="no such file or folder"):
        find_images([tmp_path / "none"])


@pytest.mark.parametrize(
    ("make", "words"),
    [(os.mkfifo, "a pipe or a device, not a file"), (lambda path: path.symlink_to("nowhere"), "a link to nothing")],
)
def test_what_is_no_file_is_told_as_another_thing(tmp_path, capsys, make, words):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    make(tmp_path / "b.png")
    assert find_images([tmp_path]) == [tmp_path / "a.png"]
    assert f"b.png: {words}" in capsys.readouterr().err
    with pytest.raises(UserError, match=words):
        find_images([tmp_path / "b.png"])
