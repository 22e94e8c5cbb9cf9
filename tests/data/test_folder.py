"""Images below a folder."""

import pickle

import pytest
from image_files import jpeg

from fiber_cli.data.folder import CaptionedFolder, FolderSource, in_layout_on_disk
from fiber_cli.data.source import BadSample
from fiber_cli.errors import UserError

# Outside of tests the reading module itself sets this filter.
pytestmark = pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")

FILES = [f"sub/{i}.jpg" for i in range(100)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for i in (0, 3):
        (tmp_path / "sub" / f"{i}.jpg").write_bytes(jpeg(size=(10 + i, 20)))
    return tmp_path


def test_samples_are_known_by_file_or_key(folder):
    source = pickle.loads(pickle.dumps(FolderSource("some", folder, FILES)))
    assert len(source) == 100
    assert source.key(3) == "sub/3.jpg"
    assert source.image(3).size == (13, 20)
    with pytest.raises(BadSample, match=r"no such file: .*sub/1\.jpg"):
        source.image(1)
    assert FolderSource("some", folder, FILES[:2], ["a", "b"]).key(1) == "b"


def test_the_limit_of_pixels_is_the_sources_own(folder):
    source = FolderSource("some", folder, FILES)
    source.max_pixels = 100
    with pytest.raises(BadSample, match="more than 100 pixels"):
        source.image(0)


def test_a_wrong_folder_is_told_at_once(folder):
    with pytest.raises(UserError, match=r"absent: no such folder of images; check the path and data\.root"):
        FolderSource("some", folder / "absent", FILES)
    with pytest.raises(UserError, match="some: lists no image"):
        FolderSource("some", folder, [])
    with pytest.raises(UserError, match=r"holds none of 34 images looked for, such as sub/0\.jpg"):
        FolderSource("some", folder / "sub", FILES)


def test_captions_are_kept_without_empty_ones(folder):
    source = CaptionedFolder("some", folder, FILES[:3], [("a b", "c"), (), ("", "d")])
    assert [source.captions(i) for i in range(3)] == [("a b", "c"), (), ("d",)]
    assert source.caption_count(0) == 2
    assert source.image_id(1) == "sub/1.jpg"


@pytest.mark.parametrize(
    ("listed", "on_disk"),
    [
        ("images/v1/patch8/{}.jpg", "patch8/{}.jpg"),
        ("images/v2/patch44/{}.jpg", "patch44/{}.jpg"),
        ("val2017/{}.jpg", "{}.jpg"),
        ("a/b/c/d/{}.jpg", "{}.jpg"),
        ("sub/{}.jpg", "sub/{}.jpg"),
        ("{}.jpg", "{}.jpg"),
    ],
)
def test_pictures_in_another_layout_are_missing(tmp_path, listed, on_disk):
    path = tmp_path / on_disk.format(3)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg())
    names = [listed.format(i) for i in range(20)]
    assert list(in_layout_on_disk(tmp_path, names)) == [on_disk.format(i) for i in range(20)]


def test_a_layout_makes_one_picture_of_two(tmp_path):
    (tmp_path / "0.jpg").write_bytes(jpeg())
    names = ["cats/0.jpg", "dogs/0.jpg"]
    assert list(in_layout_on_disk(tmp_path, names)) == names
    assert list(in_layout_on_disk(tmp_path / "absent", names)) == names
    # The copies of few-shot training are one picture before.
    assert list(in_layout_on_disk(tmp_path, ["cats/0.jpg"] * 2)) == ["0.jpg"] * 2
