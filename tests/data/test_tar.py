"""The index of tar shards: every dialect, damage, and how it is kept."""

import io
import os
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from image_files import jpeg
from tar_files import shard_sample, write_tar

from fiber_cli.data import shard_index
from fiber_cli.data import tar as tar_index
from fiber_cli.data.mapped_file import read_mapped, write_mapped
from fiber_cli.data.shard_files import LocalShard
from fiber_cli.data.source import BadSample
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
        patch.setattr(shard_index, "read_index", None)  # reading a shard again would fail
        again = WebDatasetSource(str(tars))
    assert [again.key(i) for i in range(12)] == [first.key(i) for i in range(12)]
    stored[0].write_bytes(b"half")  # a damaged index is made again
    table_of(index_folder).unlink()
    assert len(WebDatasetSource(str(tars))) == 12
    assert stored[0].stat().st_size > 100
    write_tar(tars / "00001.tar", shard_sample("new"))
    assert WebDatasetSource(str(tars)).captions(4) == ("a text",)


def test_webdataset_without_a_place_for_its_index(tars, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FIBER_CACHE", str(tmp_path / "file"))
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


@pytest.mark.parametrize("padding", [0, 512, 3 * 2**20])
def test_what_stands_behind_an_end_mark_is_left_out(tars, tmp_path, padding):
    shards = [(tars / f"{number:05d}.tar").read_bytes() for number in range(3)]
    both = tmp_path / "both.tar"
    both.write_bytes((bytes(padding)).join(shards))
    source, apart = WebDatasetSource(str(both)), WebDatasetSource(str(tars))
    assert len(source) == len(apart) == 12
    for i in range(12):
        assert source.captions(i) == apart.captions(i)
        assert source.encoded_image(i) == apart.encoded_image(i)
    damaged = bytearray(shards[1])
    damaged[0] ^= 255
    both.write_bytes(shards[0] + bytes(padding) + damaged)
    with pytest.raises(UserError, match=f"no tar header at byte {len(shards[0]) + padding}"):
        WebDatasetSource(str(both))
    for no_tar in (b"\n", b"something else".ljust(512), b"\xff" * 5000):
        both.write_bytes(shards[0] + bytes(padding) + no_tar)
        assert len(WebDatasetSource(str(both))) == 4
    both.write_bytes(shards[0] + bytes(padding) + shards[0])
    with pytest.raises(UserError, match="a second jpg of sample"):
        WebDatasetSource(str(both))


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


def header(name=b"a.txt", size=b"00000000005\0", kind=b"0"):
    """A header with this field as its size, and the checksum that belongs to it."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = size
    block[156:157] = kind
    block[257:263] = b"ustar\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content):
    return content + bytes(-len(content) % 512)


BIG = (2**62).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (header(size=b"-0000001000\0"), "no tar header at byte 0"),
        (header(size=b"0o000000005\0"), "no tar header at byte 0"),
        (header(size=b"0_000000005\0"), "no tar header at byte 0"),
        (header(size=b"\xff" * 12), "negative size at byte 0"),
        (header(size=b"\xff" * 11 + b"\x00"), "negative size at byte 0"),
        (header(size=b"\x80\0\0\0" + BIG), "cut short: member at byte 0"),
        (header(size=b"\x80" + b"\xff" * 11), "cut short: member at byte 0"),
        (header(size=b"\x81" + b"\0" * 11), "no tar header at byte 0"),
        (header(size=b"77777777777\0"), "cut short: member at byte 0"),
        (header(kind=b"x", size=b"00000000013\0") + padded(b"11 size=-5\n"), "a member of the size b'-5'"),
        (header(kind=b"x", size=b"00000000034\0") + padded(b"28 size=9999999999999999999\n"), "cut short"),
        (header(kind=b"x", size=b"00000000036\0") + padded(b"30 size=999999999999999999999\n"), "the size b'999"),
        (header(kind=b"x", size=b"00000000013\0") + padded(b"99 size=5 \n"), "damaged pax records"),
        (header(kind=b"x", size=b"00000000013\0") + padded(b"0 size=555\n"), "damaged pax records"),
        (header(kind=b"x", size=b"00000000013\0") + padded(b"-1 size=55\n"), "damaged pax records"),
        (header(kind=b"x", size=b"00000000013\0") + padded(b"no records\n"), "damaged pax records"),
        (header(kind=b"x", size=b"00010000000\0") + bytes(2**21), "bytes about one member"),
        (header(kind=b"L", size=b"00010000000\0") + b"n" * 2**21, "bytes about one member"),
        (header(kind=b"L", size=b"00000010001\0") + padded(b"n" * 4097), "a name of 4,097 bytes"),
    ],
)
def test_hostile_headers_are_told_with_their_place(tmp_path, content, problem):
    path = tmp_path / "a.tar"
    path.write_bytes(content + header() + padded(b"hello") + bytes(1024))
    with pytest.raises(UserError, match="1 of 1 shards cannot be used") as told:
        WebDatasetSource(str(path))
    assert problem in str(told.value)


@pytest.mark.parametrize(
    "told",
    [
        header(size=b"\x80" + bytes(10) + b"\x05"),
        header(kind=b"x", size=b"00000000011\0") + padded(b"9 size=5\n") + header(size=b"00000000000\0"),
    ],
)
def test_sizes_beside_the_octal_field_are_read(tmp_path, told):
    path = tmp_path / "a.tar"
    path.write_bytes(told + padded(b"hello") + header(name=b"b.txt") + padded(b"again") + bytes(1024))
    source = WebDatasetSource(str(path))
    assert [source.captions(i) for i in range(len(source))] == [("hello",), ("again",)]


def test_a_text_of_any_size_is_not_read(tmp_path):
    path = tmp_path / "a.tar"
    size = tar_index.LARGEST_TEXT + 1
    content = b'{"captions": ["' + b"x" * (size - 18) + b'"]}'
    write_tar(path, [("a.json", content), ("b.txt", b"hello")])
    source = WebDatasetSource(str(path))
    with pytest.raises(BadSample, match=r"its json has .* bytes"):
        source.captions(0)
    assert source.captions(1) == ("hello",)


def nested(levels):
    return b'{"captions": ' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize(
    "described", [nested(100_000), b'{"captions": ' + b"9" * 9_000 + b"}", b'{"captions": [1e400]}']
)
def test_json_without_bounds_costs_its_sample_alone(tmp_path, described):
    path = write_tar(tmp_path / "a.tar", [("a.json", described), ("b.txt", b"hello")])
    source = WebDatasetSource(str(path))
    with pytest.raises(BadSample, match="unreadable text"):
        source.captions(0)
    assert source.captions(1) == ("hello",)


def table_of(index_folder):
    """What is kept of all shards together."""
    [file] = index_folder.parent.glob("shards-*")
    return file


@pytest.mark.parametrize("kept", ["shard", "table"])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("keys", lambda kept: np.append(kept, kept)),
        ("keys", lambda kept: kept.astype(np.int64)),
        ("key_ends", lambda kept: kept[::-1].copy()),
        ("key_ends", lambda kept: kept - 1),
        ("locations", lambda kept: kept.astype(float) * np.nan),
        ("locations", lambda kept: kept[:1]),
        ("locations", lambda kept: kept * 10**9),
        ("locations", lambda kept: kept - 5),
        ("captions", lambda kept: np.array([-1, 1], np.int32)),
        ("captions", lambda kept: np.array([[1, 1]], np.int32)),
        ("left_out", lambda kept: np.frombuffer(b"[" * 10_000, np.uint8)),
        ("left_out", lambda kept: np.frombuffer(b"[3]", np.uint8)),
        ("left_out", lambda kept: np.frombuffer(b'{".heic": "many"}', np.uint8)),
        ("ends", lambda kept: kept + 1),
        ("sizes", lambda kept: kept[:0]),
    ],
)
def test_a_kept_index_that_is_none_of_its_shard_is_made_again(tmp_path, index_folder, kept, name, change):
    path = write_tar(tmp_path / "a.tar", [("a.txt", b"hello"), ("b.txt", b"again")], tarfile.USTAR_FORMAT)
    assert len(WebDatasetSource(str(path))) == 2
    [file] = index_folder.iterdir() if kept == "shard" else [table_of(index_folder)]
    if kept == "shard":
        table_of(index_folder).unlink()
    arrays, metadata = read_mapped(file)
    if name not in arrays:
        return  # of the other kind
    write_mapped(file, arrays | {name: change(np.array(arrays[name], subok=False))}, metadata)
    source = WebDatasetSource(str(path))
    assert [source.captions(i) for i in range(len(source))] == [("hello",), ("again",)]
    assert [source.key(i) for i in range(len(source))] == ["a/a", "a/b"]


def _reads_of_a_rank(folder, cache, rank):
    os.environ.update(RANK=str(rank), WORLD_SIZE="4", FIBER_CACHE=cache)
    read = []
    read_index = shard_index.read_index

    def reading(shard):
        read.append(shard.size())
        time.sleep(0.02)
        return read_index(shard)

    shard_index.read_index = reading
    source = WebDatasetSource(folder)
    return len(read), [source.key(i) for i in range(24)]


def test_several_ranks_read_one_shard(tmp_path):
    for shard in range(12):
        write_tar(tmp_path / "many" / f"{shard:02}.tar", shard_sample(f"{shard}a") + shard_sample(f"{shard}b"))
    arguments = [str(tmp_path / "many")] * 4, [str(tmp_path / "own")] * 4, range(4)
    with ProcessPoolExecutor(4, get_context("fork")) as pool:
        told = list(pool.map(_reads_of_a_rank, *arguments))
    assert sum(count for count, _ in told) == 12
    assert all(keys == told[0][1] for _, keys in told)
    assert told[0][1][:3] == ["00/0a", "00/0b", "01/1a"]


def test_every_header_is_a_read_of_its_own(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", [m for i in range(200) for m in shard_sample(f"{i}")])
    offsets = []
    read = LocalShard.read

    def reading(self, size, offset):
        offsets.append(offset)
        return read(self, size, offset)

    monkeypatch.setattr(LocalShard, "read", reading)
    assert len(WebDatasetSource(str(path))) == 200
    assert offsets == sorted(offsets)
    assert len(offsets) <= 2 + path.stat().st_size // LocalShard.block
