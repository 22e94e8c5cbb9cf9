"""The index of tar shards: every dialect, damage, and how it is kept."""

import tarfile

import pytest
from tar_files import shard_sample, write_tar

from fiber_cli.data import tar as tar_index
from fiber_cli.data.sources.webdataset import WebDatasetSource
from fiber_cli.errors import UserError


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_webdataset_reads_every_tar_dialect(tmp_path, format):
    names = ["plain", "./dotted", "folder/inside", f"{'d' * 90}/{'n' * 60}", "a.b"]
    if format != tarfile.USTAR_FORMAT:
        names += ["ünïcode", "long/" + "k" * 200]
    path = write_tar(tmp_path / "a.tar", [(f"{name}.txt", name.encode()) for name in names], format)
    with tarfile.open(path, "a") as tar:  # other kinds of member are passed over
        tar.add(tmp_path, "subfolder", recursive=False)
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "x" * 150
        tar.addfile(link)
    source = WebDatasetSource(str(path))
    # A key ends at the first dot, so that `a.b.txt` is the part b.txt of sample a and no text.
    keys = [name.removeprefix("./") for name in names if name != "a.b"]
    assert [source.key(i) for i in range(len(source))] == [f"a/{key}" for key in keys]
    assert [source.captions(i)[0].removeprefix("./") for i in range(len(source))] == keys


def test_webdataset_index_is_kept_and_renewed(tars, index_folder, monkeypatch):
    first = WebDatasetSource(str(tars))
    stored = sorted(index_folder.iterdir())
    assert len(stored) == 3
    with monkeypatch.context() as patch:
        patch.setattr(tar_index, "members", None)  # reading a shard again would fail
        again = WebDatasetSource(str(tars))
    assert [again.key(i) for i in range(12)] == [first.key(i) for i in range(12)]
    stored[0].write_bytes(b"half")  # a damaged index is made again
    assert len(WebDatasetSource(str(tars))) == 12
    assert stored[0].stat().st_size > 100
    write_tar(tars / "00001.tar", shard_sample("new"))
    assert WebDatasetSource(str(tars)).captions(4) == ("a text",)


def test_webdataset_without_a_place_for_its_index(tars, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot keep the index"):
        assert len(WebDatasetSource(str(tars))) == 12


def test_webdataset_names_all_damaged_shards_at_once(tars):
    whole = (tars / "00000.tar").read_bytes()
    (tars / "00000.tar").write_bytes(whole[:1700])  # in the middle of the first image
    second = bytearray((tars / "00001.tar").read_bytes())
    with tarfile.open(tars / "00001.tar") as tar:
        at, end = tar.getmembers()[3].offset, tar.getmembers()[-1].offset_data + 512
    second[at : at + 512] = b"\xff" * 512
    (tars / "00001.tar").write_bytes(second)
    (tars / "00003.tar").write_bytes(whole[:end])  # after the last member
    (tars / "00004.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    (tars / "00005.tar").write_bytes(b"")
    write_tar(tars / "00006.tar", shard_sample("twice") + shard_sample("twice"))
    with pytest.raises(UserError) as raised:
        WebDatasetSource(str(tars))
    lines = str(raised.value).splitlines()
    assert "6 of 7 shards" in lines[0]
    assert "fetch them again or leave them out" in lines[0]
    assert "00000.tar: cut short: member at byte" in lines[1]
    assert "of 1700" in lines[1]
    assert f"00001.tar: no tar header at byte {at}" in lines[2]
    assert f"00003.tar: cut short: the end mark is missing at byte {end}" in lines[3]
    assert "00004.tar: gzip-compressed" in lines[4]
    assert "00005.tar: cut short: the end mark is missing at byte 0" in lines[5]
    assert "00006.tar: a second jpg of sample twice" in lines[6]
