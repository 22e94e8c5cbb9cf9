"""The sources: formats read right, and bad data answered with what, where and how to mend."""

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from fiber_cli.data.sources import SOURCES
from fiber_cli.data.sources import webdataset as shards
from fiber_cli.data.sources.karpathy import KarpathySource
from fiber_cli.data.sources.webdataset import WebDatasetSource
from fiber_cli.data.source import BadSample, EachCaption, Source, sample_id
from fiber_cli.data.sources.visual_genome import VisualGenomeSource
from fiber_cli.errors import UserError
from fiber_cli.kinds import KINDS


def jpeg(colour=(200, 30, 40), size=(40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Shard indices of a test stay in its own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fiber" / "shards"


def test_importing_the_package_is_light():
    code = "import sys, fiber_cli.data; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert set(SOURCES) == {kind for kinds in KINDS.values() for kind in kinds}


# Karpathy JSON


@pytest.fixture
def coco(tmp_path):
    """COCO's form: sub-folders, and restval beside train."""
    images = []
    for i, split in enumerate(["train", "restval", "val", "test", "train"]):
        image = {"filename": f"{i}.jpg", "filepath": "sub", "split": split, "imgid": i, "cocoid": 100 + i}
        sentences = [{"raw": text} for text in (f" caption {i} 0 ", f"caption {i} 1", " ")]
        images.append(image | {"sentences": sentences})
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for i in range(4):  # the fifth is missing
        (tmp_path / "images" / "sub" / f"{i}.jpg").write_bytes(jpeg())
    return tmp_path


def test_karpathy_splits_captions_and_images(coco):
    source = KarpathySource(coco / "dataset_coco.json", coco / "images")
    assert [source.key(i) for i in range(len(source))] == ["sub/0.jpg", "sub/1.jpg", "sub/4.jpg"]
    assert source.captions(1) == ("caption 1 0", "caption 1 1") and source.image(0).size == (40, 30)
    assert sample_id(source, 0) == "dataset_coco:train/sub/0.jpg"
    assert sorted(source.order(np.random.default_rng(0))) == [0, 1, 2]
    with pytest.raises(BadSample, match="no such file.*4.jpg"):
        source.image(2)
    both = KarpathySource(coco / "dataset_coco.json", coco / "images", split=["val", "test"])
    assert [both.key(i) for i in range(2)] == ["sub/2.jpg", "sub/3.jpg"] and len(both) == 2
    source.max_pixels = 100
    with pytest.raises(BadSample, match="more than 100 pixels"):
        source.image(0)


def test_karpathy_says_what_is_wrong(coco):
    file, images = coco / "dataset_coco.json", coco / "images"
    for split, match in (("dev", "no images of split dev.*are: test, train, val"), ([], "none given")):
        with pytest.raises(UserError, match=match):
            KarpathySource(file, images, split=split)
    with pytest.raises(UserError, match="absent.json.*No such file.*dataset_coco.json"):
        KarpathySource(coco / "absent.json", images)
    with pytest.raises(UserError, match="no such folder of images"):
        KarpathySource(file, coco / "absent")
    with pytest.raises(UserError, match="none of 3 images looked for, such as sub/0.jpg"):
        KarpathySource(file, coco)
    file.write_text(file.read_text()[:-20])
    with pytest.raises(UserError, match="not valid JSON"):
        KarpathySource(file, images)
    for content in ('{"images": [{"filename": "a.jpg"}]}', "[]", '{"images": 3}', '{"annotations": []}'):
        file.write_text(content)
        with pytest.raises(UserError, match=r"not a Karpathy JSON, see images\[0\]"):
            KarpathySource(file, images)
    file.write_text('{"images": []}')
    with pytest.raises(UserError, match="no images of split train.*are: none"):
        KarpathySource(file, images)


def test_real_flickr8k(shared):
    folder = shared / "data" / "flickr8k-1k"
    json_file, images = folder / "dataset_flickr8k.json", folder / "images"
    train, val = KarpathySource(json_file, images), KarpathySource(json_file, images, "val")
    assert (len(train), len(val)) == (800, 100)
    assert all(len(source.captions(i)) == 5 for source in (train, val) for i in range(len(source)))
    assert len({source.key(i) for source in (train, val) for i in range(len(source))}) == 900
    assert train.captions(0)[1] == "a man stands alone near a white fence ."
    for i in range(0, 800, 40):
        assert min(train.image(i).size) > 90
    each = EachCaption(train)
    assert len(each) == 4000 and each.captions(3999) == (train.captions(799)[4],)


# One entry per caption


class Letters(Source):
    """A source without images: captions as given, in order of the numbers."""

    name = "letters"

    def __init__(self, captions):
        self._captions = captions

    def __len__(self):
        return len(self._captions)

    def order(self, rng):
        return np.arange(len(self))

    def key(self, i):
        return f"image {i}"

    def captions(self, i):
        if self._captions[i] is None:
            raise BadSample("unreadable")
        return self._captions[i]


def test_each_caption_shows_every_pair_once():
    source = Letters([("a", "b", "c"), ("d",), (), None, ("e", "f")])
    each = EachCaption(source)
    assert len(each) == 3 + 1 + 1 + 1 + 2
    order = each.order(np.random.default_rng(0))
    assert sorted(order) == list(range(8)) and list(order) != list(range(8))
    pairs = []
    for i in range(8):
        try:
            pairs.append((each.key(i), each.captions(i)))
        except BadSample:
            pairs.append((each.key(i), "bad"))
    texts = [("a",), ("b",), ("c",), ("d",), (), "bad", ("e",), ("f",)]
    assert pairs == [(f"image {n}", text) for n, text in zip([0, 0, 0, 1, 2, 3, 4, 4], texts)]
    single = EachCaption(Letters([("a",), ("b",)]))
    assert list(single.order(np.random.default_rng(0))) == [0, 1]  # the source's own order


# WebDataset


def write_tar(path, members, format=tarfile.PAX_FORMAT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5 if format == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(content))
    return path


def sample(key, caption="a text", colour=(9, 9, 9), **described):
    described = {"caption": caption, "width": 40, **described}
    return [
        (f"{key}.jpg", jpeg(colour)),
        (f"{key}.txt", caption.encode()),
        (f"{key}.json", json.dumps(described).encode()),
    ]


@pytest.fixture
def tars(tmp_path):
    """Three shards of four samples; the red value tells them apart."""
    for shard in range(3):
        members = []
        for i in range(4):
            members += sample(f"{shard:05d}{i:04d}", f"text {shard} {i}", (40 * shard + 10 * i, 0, 0))
        write_tar(tmp_path / "cc" / f"{shard:05d}.tar", members)
    return tmp_path / "cc"


def test_webdataset_random_access(tars):
    source = WebDatasetSource(str(tars))
    assert len(source) == 12 and source.name == "cc"
    for i in np.random.default_rng(0).permutation(12):
        shard, row = divmod(int(i), 4)
        assert source.key(i) == f"{shard:05d}/{shard:05d}{row:04d}"
        assert source.captions(i) == (f"text {shard} {row}",)
        assert abs(source.image(i).getpixel((5, 5))[0] - (40 * shard + 10 * row)) <= 2
    copy = pickle.loads(pickle.dumps(source))  # with files open, as for a worker
    assert copy.captions(7) == ("text 1 3",)


def test_webdataset_order_keeps_shards_together(tmp_path, monkeypatch):
    for shard in range(6):
        write_tar(tmp_path / "s" / f"{shard}.tar", [m for i in range(5) for m in sample(f"{shard}-{i}")])
    source = WebDatasetSource(f"{tmp_path}/s/*.tar")
    monkeypatch.setattr(shards, "_WINDOW", 2)
    orders = [source.order(np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert (orders[0] == orders[1]).all() and (orders[0] != orders[2]).any()
    for order in orders:
        assert sorted(order) == list(range(30))
        shard = (order // 5).reshape(3, 10)
        assert all(len(set(window)) == 2 for window in shard)  # each shard in one window only
        assert any((np.diff(window) != 0).sum() > 1 for window in shard)  # and mixed within it
    assert list(orders[0] // 5) != sorted(orders[0] // 5)


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


def test_webdataset_as_its_own_library_writes_it(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(f"{tmp_path}/%05d.tar", maxcount=3, verbose=0) as writer:
        for i in range(7):
            parts = {"jpg": np.full((8, 8, 3), 20 * i, np.uint8), "txt": f"text {i}", "json": {"width": 8}}
            writer.write({"__key__": f"{i:09d}"} | parts)
    source = WebDatasetSource(str(tmp_path / "{00000..00002}.tar"))
    assert [source.captions(i) for i in range(len(source))] == [(f"text {i}",) for i in range(7)]
    assert all(abs(source.image(i).getpixel((4, 4))[1] - 20 * i) <= 2 for i in range(7))


def test_webdataset_captions_and_incomplete_samples(tmp_path):
    members = [
        *sample("many", captions=["one", " two ", "three"]),
        ("only.json", b'{"caption": "from json"}'),
        ("only.png", jpeg()),
        ("textless.webp", jpeg()),
        ("imageless.txt", b"a text"),
        ("broken.json", b'{"captions": [1'),
        ("broken.jpg", jpeg()[:300]),
        ("latin.txt", "é".encode("latin-1")),
        ("latin.npy", b"something else"),
        ("empty.txt", b" \n"),
    ]
    source = WebDatasetSource([str(write_tar(tmp_path / "a.tar", members))])
    index = {source.key(i).removeprefix("a/"): i for i in range(len(source))}
    assert source.captions(index["many"]) == ("one", "two", "three")
    assert source.captions(index["only"]) == ("from json",)
    assert source.image(index["only"]).mode == "RGB"  # whatever its ending says
    assert source.captions(index["textless"]) == source.captions(index["empty"]) == ()
    for key, match in (("imageless", "no image"), ("broken", "not a readable image")):
        with pytest.raises(BadSample, match=match):
            source.image(index[key])
    for key in ("broken", "latin"):
        with pytest.raises(BadSample, match="unreadable text"):
            source.captions(index[key])
    assert len(EachCaption(source)) == len(source) + 2  # two more for `many`


def test_webdataset_index_is_kept_and_renewed(tars, cache, monkeypatch):
    first = WebDatasetSource(str(tars))
    stored = sorted(cache.iterdir())
    assert len(stored) == 3
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_members", None)  # reading a shard again would fail
        again = WebDatasetSource(str(tars))
    assert [again.key(i) for i in range(12)] == [first.key(i) for i in range(12)]
    stored[0].write_bytes(b"half")  # a damaged index is made again
    assert len(WebDatasetSource(str(tars))) == 12 and stored[0].stat().st_size > 100
    write_tar(tars / "00001.tar", sample("new"))
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
    write_tar(tars / "00006.tar", sample("twice") + sample("twice"))
    with pytest.raises(UserError) as raised:
        WebDatasetSource(str(tars))
    lines = str(raised.value).splitlines()
    assert "6 of 7 shards" in lines[0] and "fetch them again or leave them out" in lines[0]
    assert "00000.tar: cut short: member at byte" in lines[1] and "of 1700" in lines[1]
    assert f"00001.tar: no tar header at byte {at}" in lines[2]
    assert f"00003.tar: cut short: the end mark is missing at byte {end}" in lines[3]
    assert "00004.tar: gzip-compressed" in lines[4]
    assert "00005.tar: cut short: the end mark is missing at byte 0" in lines[5]
    assert "00006.tar: a second jpg of sample twice" in lines[6]


def test_webdataset_that_changes_under_way(tars):
    source = WebDatasetSource(str(tars))
    source.image(11)
    os.truncate(tars / "00002.tar", 2000)
    with pytest.raises(BadSample, match="became shorter"):
        source.image(11)
    os.remove(tars / "00001.tar")
    with pytest.raises(BadSample, match="No such file"):
        source.captions(5)


def test_open_files_are_bounded(tars, monkeypatch):
    monkeypatch.setattr(shards, "_OPEN_FILES", 2)
    source = WebDatasetSource(str(tars))
    for i in (0, 4, 8, 1, 9, 5):
        assert source.captions(i) == (f"text {i // 4} {i % 4}",)
        assert len(source._open) <= 2


def test_finding_shards(tars, tmp_path):
    every = [str(tars / f"{n:05d}.tar") for n in range(3)]
    assert shards.find_shards(str(tars)) == every == shards.find_shards(str(tars / "*.tar"))
    assert shards.find_shards(str(tars / "{00001..00002}.tar")) == every[1:]
    assert shards.find_shards([every[2], str(tars)]) == [every[2], *every[:2]]  # each once
    with pytest.raises(UserError, match=r"no tar shards at .*00003.tar, .*00004.tar; give a folder"):
        shards.find_shards(str(tars / "{00002..00004}.tar"))
    for empty in (str(tmp_path / "none"), str(tmp_path / "none*.tar"), []):
        with pytest.raises(UserError, match="no tar shards at"):
            shards.find_shards(empty)
    (tmp_path / "[odd]").mkdir()
    odd = write_tar(tmp_path / "[odd]" / "a.tar", sample("x"))
    assert shards.find_shards(str(tmp_path / "[odd]")) == [str(odd)] == shards.find_shards(str(odd))
    write_tar(tmp_path / "b.tar", [("readme.md", b"nothing of ours")])
    with pytest.raises(UserError, match="no sample in 1 shards"):
        WebDatasetSource(str(tmp_path / "b.tar"))


def test_braces():
    assert shards.expand_braces("a{08..11}") == ["a08", "a09", "a10", "a11"]
    assert shards.expand_braces("{9..11}.tar") == ["9.tar", "10.tar", "11.tar"]
    assert shards.expand_braces("{x,y}/{0..1}") == ["x/0", "x/1", "y/0", "y/1"]
    assert shards.expand_braces("plain") == ["plain"]
    assert len(shards.expand_braces("{00000..00331}")) == 332


# Visual Genome


@pytest.fixture
def genome(tmp_path, coco):
    regions = [
        {"id": i, "regions": [{"region_id": 10 * i + r, "phrase": f" thing {r} of {i} "} for r in range(i)]}
        for i in range(1, 5)
    ]
    (tmp_path / "region_descriptions.json").write_text(json.dumps(regions))
    data = [{"image_id": i, "coco_id": {1: 102, 2: None, 3: 101, 4: 103}[i]} for i in range(1, 5)]
    (tmp_path / "image_data.json").write_text(json.dumps(data))
    for folder, ids in (("VG_100K", (1, 2)), ("VG_100K_2", (3, 4))):
        (tmp_path / "vg" / folder).mkdir(parents=True)
        for i in ids:
            (tmp_path / "vg" / folder / f"{i}.jpg").write_bytes(jpeg(size=(10 * i, 20)))
    return tmp_path


def test_visual_genome(genome):
    source = VisualGenomeSource(genome / "region_descriptions.json", genome / "vg")
    assert len(source) == 4 and source.excluded == 0
    assert [source.image(i).width for i in range(4)] == [10, 20, 30, 40]
    assert source.captions(2) == ("thing 0 of 3", "thing 1 of 3", "thing 2 of 3")
    names = ("region_descriptions.json", "vg", "image_data.json", "dataset_coco.json")
    without = VisualGenomeSource(*(genome / name for name in names))
    # COCO's 102 (val) and 103 (test) go; 101 (restval) and the image that is not of COCO stay.
    assert [without.key(i) for i in range(2)] == ["VG_100K/2.jpg", "VG_100K_2/3.jpg"]
    assert len(without) == 2 and without.excluded == 2


def test_visual_genome_says_what_is_wrong(genome):
    regions, images = genome / "region_descriptions.json", genome / "vg"
    data, karpathy = genome / "image_data.json", genome / "dataset_coco.json"
    with pytest.raises(UserError, match="only together"):
        VisualGenomeSource(regions, images, exclude=karpathy)
    with pytest.raises(UserError, match="not Visual Genome's region descriptions"):
        VisualGenomeSource(data, images)
    with pytest.raises(UserError, match="not Visual Genome's image_data.json.*image_id"):
        bad = genome / "bad.json"
        bad.write_text('[{"coco_id": 102}]')
        VisualGenomeSource(regions, images, bad, karpathy)
    with pytest.raises(UserError, match="none of 4 images looked for"):
        VisualGenomeSource(regions, genome / "images")
    data.write_text("[]")
    with pytest.raises(UserError, match="outside train no `cocoid`"):
        VisualGenomeSource(regions, images, data, karpathy)
    regions.write_text("[]")
    with pytest.raises(UserError, match="no image is left"):
        VisualGenomeSource(regions, images)
