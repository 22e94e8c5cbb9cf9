"""The index of tar shards: every dialect, damage, and how it is kept."""

import io
import tarfile

import pytest
from image_files import jpeg
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


def images_and_left_out(tmp_path, *names):
    """Of a shard with such members: which of them each sample has, by its grey level, and what is left out."""
    members = []
    for number, name in enumerate(names):
        content = jpeg((40 * number,) * 3) if name.rpartition(".")[2] not in ("txt", "npy") else b"text"
        members.append((name, content))
    source = WebDatasetSource(str(write_tar(tmp_path / "a.tar", members)))
    images = {}
    for i in range(len(source)):
        images[source.key(i).removeprefix("a/")] = names[round(source.image(i).getpixel((5, 5))[0] / 40)]
    return images, dict(source.unread_members)


@pytest.mark.parametrize(
    ("names", "images", "left_out"),
    [
        # the first ending of the table, wherever it stands
        (("1.jpg", "1.png", "1.txt"), {"1": "1.jpg"}, {".png beside .jpg": 1}),
        (("1.webp", "1.png", "1.txt"), {"1": "1.png"}, {".webp beside .png": 1}),
        (("1.gif", "1.tiff", "1.JPEG"), {"1": "1.JPEG"}, {".tiff beside .gif": 1, ".gif beside .jpeg": 1}),
        # every ending of a picture
        (("1.jfif", "2.avif", "3.bmp", "4.tif"), {n[0]: n for n in ("1.jfif", "2.avif", "3.bmp", "4.tif")}, {}),
        # a key ends at the first dot
        (("1.jpg", "p 2.0.jpg", "p 2.0.txt"), {"1": "1.jpg"}, {".0.jpg": 1, ".0.txt": 1}),
        (("1.jpg", "1.seg.png", "1.npy", "README"), {"1": "1.jpg"}, {".seg.png": 1, ".npy": 1, "no ending": 1}),
        (("v1.5/1.jpg", "./._1.jpg"), {"v1.5/1": "v1.5/1.jpg"}, {"._1.jpg": 1}),
    ],
)
def test_members_that_are_left_out_are_counted(tmp_path, capsys, names, images, left_out):
    assert images_and_left_out(tmp_path, *names) == (images, left_out)
    err = capsys.readouterr().err
    assert (f"{sum(left_out.values())} members have the endings" in err) == bool(left_out)
    assert all(f"{ending} {count}" in err for ending, count in left_out.items())
    assert images_and_left_out(tmp_path, *names) == (images, left_out)  # of the index that is kept


def test_links_are_left_out_and_told(tmp_path, capsys):
    path = write_tar(tmp_path / "a.tar", shard_sample("one"))
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("two.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "one.jpg"
        tar.addfile(link)
    assert WebDatasetSource(str(path)).unread_members == {".jpg (a link)": 1}
    assert "1 members have the endings .jpg (a link) 1" in capsys.readouterr().err


def test_only_the_first_rank_tells(tmp_path, capsys, monkeypatch):
    path = write_tar(tmp_path / "a.tar", [*shard_sample("one"), ("one.npy", b"")])
    monkeypatch.setenv("RANK", "1")
    WebDatasetSource(str(path))
    assert capsys.readouterr().err == ""


def test_names_that_are_not_utf_8_stay_apart(tmp_path):
    samples = [*shard_sample("caf\udce9", "one"), *shard_sample("caf\udce8", "two")]
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as tar:
        for name, content in samples:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    source = WebDatasetSource(str(path))
    assert [source.key(i).encode("utf-8", "surrogateescape") for i in range(2)] == [b"a/caf\xe9", b"a/caf\xe8"]
    assert [source.captions(i) for i in range(2)] == [("one",), ("two",)]
