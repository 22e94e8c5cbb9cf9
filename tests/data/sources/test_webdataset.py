"""Captions of WebDataset shards."""

import numpy as np
import pytest
from image_files import jpeg
from tar_files import shard_sample, write_tar

from fiber_cli.data.each_caption import EachCaption
from fiber_cli.data.source import BadSample
from fiber_cli.data.sources.webdataset import WebDatasetSource


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
        *shard_sample("many", captions=["one", " two ", "three"]),
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_caption(tmp_path, encoding):
    described = '{"caption": "vom Hündchen"}'.encode(encoding)
    members = [("a.jpg", jpeg()), ("a.txt", "ein Hündchen".encode(encoding)), ("b.jpg", jpeg()), ("b.json", described)]
    source = WebDatasetSource(str(write_tar(tmp_path / "a.tar", members)))
    assert [source.captions(i) for i in range(2)] == [("ein Hündchen",), ("vom Hündchen",)]
