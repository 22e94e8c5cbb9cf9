"""Sources as shards: the same samples in the same order, the same bytes by any number of processes, gone on with."""

import json

import numpy as np
import pytest
from image_files import jpeg
from region_files import coco_box, coco_file, mdetr_file
from tar_files import shard_sample, write_tar

from fiber_cli.data.shard_set import SET_FILE
from fiber_cli.data.sharding import shard_source
from fiber_cli.data.sources import open_source, source_format
from fiber_cli.errors import UserError
from fiber_cli.outputs import Outputs


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def entry(kind, **settings):
    """The source of an entry of a recipe."""
    return open_source(source_format(kind).settings(kind=kind, **settings))


def pack(source, folder, *, per_shard=3, workers=1):
    return shard_source(source, folder, Outputs(), per_shard=per_shard, workers=workers)


@pytest.fixture
def captioned(tmp_path):
    """Eight pictures with captions, of which one cannot be read and one is missing."""
    images = []
    (tmp_path / "images").mkdir()
    for i in range(8):
        if i != 6:
            content = b"no picture" if i == 4 else jpeg((30 * i, 10, 0), (40 + i, 30))
            (tmp_path / "images" / f"p{i}.jpg").write_bytes(content)
        sentences = [{"raw": f"caption {n} of {i}, ünd"} for n in range(i % 3)]
        images.append({"filename": f"p{i}.jpg", "split": "train", "sentences": sentences})
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
    return entry("karpathy", json=str(tmp_path / "dataset.json"), images=str(tmp_path / "images"))


def test_a_sample_of_the_shards_is_not_that_of_the_folder(captioned, tmp_path):
    result = pack(captioned, tmp_path / "out")
    assert (result.samples, result.shards, result.kept) == (8, 3, 0)
    assert [sample for sample, _ in result.bad] == ["dataset:train/p4.jpg", "dataset:train/p6.jpg"]
    shards = entry(**result.entry)
    assert len(shards) == 8
    for i in range(8):
        assert shards.captions(i) == captioned.captions(i)
        assert shards.caption_count(i) == captioned.caption_count(i) or not captioned.captions(i)
        if i not in (4, 6):
            assert np.array_equal(shards.image(i), captioned.image(i))
            assert shards.encoded_image(i) == captioned.encoded_image(i)
    for seed in range(3):
        order = captioned.order(np.random.default_rng(seed))
        assert np.array_equal(shards.order(np.random.default_rng(seed)), order)


def test_boxes_with_names_are_other_boxes(tmp_path):
    boxes = [coco_box(7, 3, [1.25, 2.5, 10.1, 5.7]), coco_box(7, 9, [0, 0, 30, 20.3]), coco_box(5, 9, [3, 3, 9, 9])]
    source = entry("coco", json=str(coco_file(tmp_path, boxes)), images=str(tmp_path))
    result = pack(source, tmp_path / "out")
    assert result.kind == "region_shards"
    shards = entry(**result.entry)
    assert list(shards.names) == ["cat", "traffic light"]
    for i in range(2):
        wanted, found = source.regions(i), shards.regions(i)
        assert np.array_equal(found.boxes, wanted.boxes)
        assert found.labels.tolist() == wanted.labels.tolist()
        assert found.size == wanted.size


def test_phrases_lose_their_spans(tmp_path):
    source = entry(
        "mdetr", json=str(mdetr_file(tmp_path, [[[0, 5]], [[0, 5], [14, 19]]])), images=str(tmp_path / "images")
    )
    found = entry(**pack(source, tmp_path / "out").entry).regions(0)
    wanted = source.regions(0)
    assert found.caption == wanted.caption
    assert [list(map(tuple, spans)) for spans in found.spans] == wanted.spans
    assert np.array_equal(found.boxes, wanted.boxes)


@pytest.mark.parametrize("settings", [{"kind": "scenes"}, {"kind": "scene_grounding"}])
def test_drawn_scenes_change(tmp_path, settings):
    source = entry(**settings, count=4, image_size=64)
    shards = entry(**pack(source, tmp_path / "out").entry)
    assert all(np.array_equal(shards.image(i), source.image(i)) for i in range(4))


def test_shards_of_shards_lose_captions(tmp_path):
    write_tar(tmp_path / "in" / "0.tar", [*shard_sample("a", "one"), *shard_sample("b", "two", captions=["x", "y"])])
    shards = entry(**pack(entry("webdataset", shards=str(tmp_path / "in")), tmp_path / "out").entry)
    assert [shards.captions(i) for i in range(2)] == [("one",), ("x", "y")]


def test_two_processes_write_other_bytes_than_one(captioned, tmp_path):
    pack(captioned, tmp_path / "one", workers=1)
    pack(captioned, tmp_path / "two", workers=2)
    names = sorted(path.name for path in (tmp_path / "one").glob("*.tar"))
    assert names == ["00000.tar", "00001.tar", "00002.tar"]
    for name in (*names, SET_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_command_that_was_ended_begins_again(captioned, tmp_path):
    out = tmp_path / "out"
    pack(captioned, out)
    whole = {path.name: path.read_bytes() for path in out.glob("*.tar")}
    kept = (out / "00000.tar").stat().st_mtime_ns
    # As if it had been ended before the third, and the second had been damaged.
    content = json.loads((out / SET_FILE).read_text())
    content["complete"] = False
    del content["shards"]["00002.tar"]
    (out / SET_FILE).write_text(json.dumps(content))
    (out / "00002.tar").unlink()
    damaged = bytearray(whole["00001.tar"])
    damaged[700] ^= 1
    (out / "00001.tar").write_bytes(damaged)
    half_written = out / f".fiber-{2**22 + 7}-0.tmp.tar"  # of no process
    half_written.write_bytes(whole["00002.tar"][:100])
    with pytest.raises(UserError, match="its shards are not finished; run the same fiber data shard again"):
        entry("webdataset", shards=str(out))
    assert pack(captioned, out).kept == 1
    assert not half_written.exists()
    assert {path.name: path.read_bytes() for path in out.glob("*.tar")} == whole
    assert (out / "00000.tar").stat().st_mtime_ns == kept
    assert pack(captioned, out).kept == 3


def test_shards_of_other_data_are_replaced(captioned, tmp_path):
    pack(captioned, tmp_path / "out")
    with pytest.raises(UserError, match="holds shards of other data, or of another number of samples"):
        pack(captioned, tmp_path / "out", per_shard=2)
    with pytest.raises(UserError, match="holds shards of other data"):
        pack(entry("scenes", count=8), tmp_path / "out")
    write_tar(tmp_path / "foreign" / "mine.tar", shard_sample("a"))
    with pytest.raises(UserError, match=r"holds mine.tar, which is none of these shards"):
        pack(captioned, tmp_path / "foreign")
    write_tar(tmp_path / "same_name" / "00000.tar", shard_sample("a"))
    with pytest.raises(UserError, match="was not written by fiber"):
        pack(captioned, tmp_path / "same_name")


def test_part_of_a_set_is_shuffled_as_the_whole(captioned, tmp_path):
    pack(captioned, tmp_path / "out")
    part = entry("webdataset", shards=(str(tmp_path / "out" / "00000.tar"), str(tmp_path / "out" / "00001.tar")))
    assert sorted(part.order(np.random.default_rng(0)).tolist()) == list(range(6))


def test_a_shard_that_was_exchanged_is_read(captioned, tmp_path):
    pack(captioned, tmp_path / "out")
    write_tar(tmp_path / "out" / "00001.tar", shard_sample("a"))
    with pytest.raises(UserError, match=r"00001.tar: has 1 samples, 3 were written"):
        entry("webdataset", shards=str(tmp_path / "out"))


def test_questions_and_prompts_are_packed(tmp_path):
    (tmp_path / "000000000001.jpg").write_bytes(jpeg())
    questions = {"questions": [{"question": "what?", "question_id": 1, "image_id": 1}]}
    (tmp_path / "q.json").write_text(json.dumps(questions))
    source = entry("vqa", questions=str(tmp_path / "q.json"), images=str(tmp_path))
    with pytest.raises(UserError, match="has questions; shards hold images with captions or with boxes"):
        pack(source, tmp_path / "out")
    boxes = coco_file(tmp_path, [coco_box(7, 3, [1, 2, 10, 5])])
    prompted = entry("coco", json=str(boxes), images=str(tmp_path), prompts={"cat": {"suffix": ", a pet"}})
    with pytest.raises(UserError, match="has prompts, which shards do not hold"):
        pack(prompted, tmp_path / "out")
