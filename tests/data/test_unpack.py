"""Archives: no file outside their folder, none over a user's own."""

import io
import tarfile
import zipfile

import pytest

from fiber_cli.data.unpack import unpack
from fiber_cli.errors import UserError


def zipped(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return path


def tarred(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def content(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_not_where_the_archive_has_them(tmp_path):
    archive = zipped(tmp_path / "a.zip", val__1="one", val__2="two", other="x")
    assert unpack(archive, tmp_path / "all") == 3
    assert content(tmp_path / "all") == {"val/1": b"one", "val/2": b"two", "other": b"x"}
    assert unpack(archive, tmp_path / "all") == 3
    assert unpack(archive, tmp_path / "some", members=["val/*"], flat=True) == 2
    assert content(tmp_path / "some") == {"1": b"one", "2": b"two"}


def test_a_tars_files_are_others(tmp_path):
    archive = tarred(tmp_path / "a.tar.gz", {"OpenSource/a_val.json": b"{}", "OpenSource/b.json": b"1"})
    assert unpack(archive, tmp_path / "out", members=["a_*.json"], flat=True) == 1
    assert unpack(archive, tmp_path / "out", members=["a_*.json"], flat=True) == 1
    assert content(tmp_path / "out") == {"a_val.json": b"{}"}


def test_a_file_with_another_content_is_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "1").write_bytes(b"own")
    with pytest.raises(UserError, match="is there and is not the file of the archive"):
        unpack(zipped(tmp_path / "a.zip", **{"1": "one"}), tmp_path / "out")
    with pytest.raises(UserError, match="is there and is not the file of the archive"):
        unpack(tarred(tmp_path / "a.tgz", {"1": b"one"}), tmp_path / "out")
    assert content(tmp_path / "out") == {"1": b"own"}


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "..\\out.txt"])
def test_a_member_lies_outside(tmp_path, name):
    with pytest.raises(UserError, match="would lie outside"):
        unpack(tarred(tmp_path / "a.tgz", {name: b"x"}), tmp_path / "in")
    assert not (tmp_path / "out.txt").exists()


def test_a_damaged_archive_or_one_without_what_is_wanted_is_unpacked(tmp_path):
    whole = zipped(tmp_path / "a.zip", **{"1": "one" * 100})
    with pytest.raises(UserError, match=r"has no dataset_coco.json"):
        unpack(whole, tmp_path / "out", members=["dataset_coco.json"])
    damaged = bytearray(whole.read_bytes())
    damaged[50] ^= 1
    (tmp_path / "b.zip").write_bytes(damaged)
    with pytest.raises(UserError, match="a damaged archive"):
        unpack(tmp_path / "b.zip", tmp_path / "out")
    (tmp_path / "c.tar.gz").write_bytes(b"\x1f\x8b nothing")
    with pytest.raises(UserError, match="a damaged archive"):
        unpack(tmp_path / "c.tar.gz", tmp_path / "out")
    assert not (tmp_path / "out" / "1").exists()
