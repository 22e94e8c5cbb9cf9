"""The setting `exclude` of every kind of source: lists of ids, JSON files of data sets, image hashes."""

import json
import pickle

import numpy as np
import pytest
from image_files import encoded, jpeg
from PIL import Image
from region_files import coco_box, coco_file, mdetr_file
from tar_files import shard_sample, write_tar

from fiber_cli.data.exclude import read_exclude_list
from fiber_cli.data.image_hashes import HashList, hash_list_json, image_hash
from fiber_cli.data.source import CaptionSource
from fiber_cli.data.sources import FORMATS, open_source, source_format
from fiber_cli.data.sources.karpathy import KarpathySettings
from fiber_cli.errors import UserError
from fiber_cli.settings import OF_EVERY_ENTRY


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def entry(kind, **settings):
    """The source of an entry of a recipe."""
    return open_source(source_format(kind).settings(kind=kind, **settings))


def written(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def blots(seed: int) -> Image.Image:
    """Smooth colours with much in them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)


def keys(source) -> list[str]:
    return [source.key(i) for i in range(len(source))]


@pytest.fixture
def pictures(tmp_path):
    """A Karpathy JSON of six pictures, named as COCO's, and the settings of its entry."""
    images = []
    (tmp_path / "images").mkdir()
    for i in range(6):
        file = f"COCO_train2014_{100 + i:012d}.jpg"
        (tmp_path / "images" / file).write_bytes(jpeg((10 * i, 0, 0), (40 + i, 30)))
        images.append({"filename": file, "split": "train", "sentences": [{"raw": f"caption {i}"}], "cocoid": 100 + i})
    json_file = written(tmp_path / "dataset.json", {"images": images})
    return {"json": json_file, "images": str(tmp_path / "images")}


@pytest.mark.parametrize(
    "listed",
    [
        "102\n104\n",
        "COCO_train2014_000000000102.jpg\nCOCO_train2014_000000000104\n",
        "coco:102\n\ncoco:104",
        [102, "104"],
        {"images": [{"file_name": "val2017/000000000102.jpg", "id": 1}, {"file_name": "000000000104.jpg", "id": 2}]},
        {"questions": [{"image_id": 102}, {"image_id": 104}, {"image_id": 104}]},
        {"images": [{"coco_url": f"http://images.cocodataset.org/val2017/000000000{n}.jpg"} for n in (102, 104)]},
    ],
)
def test_a_form_of_list_leaves_out_other_pictures(tmp_path, pictures, listed, capsys):
    source = entry("karpathy", **pictures, exclude=written(tmp_path / "list", listed))
    assert [int(key[-7:-4]) for key in keys(source)] == [100, 101, 103, 105]
    assert source.excluded == 2
    assert "exclude leaves out 2 of 6 samples: 2 by " in capsys.readouterr().err


def test_a_number_of_another_data_set_is_taken_for_cocos(tmp_path, pictures):
    """`104.jpg` is Visual Genome's or Flickr30k's."""
    listed = written(tmp_path / "list", {"images": [{"file_name": "104.jpg"}]})
    assert len(entry("karpathy", **pictures, exclude=listed)) == 6


def test_what_is_left_is_not_its_own_sample(tmp_path, pictures):
    source = entry("karpathy", **pictures, exclude=written(tmp_path / "list", "100\n103"))
    assert [source.captions(i) for i in range(4)] == [("caption 1",), ("caption 2",), ("caption 4",), ("caption 5",)]
    assert [source.image(i).width for i in range(4)] == [41, 42, 44, 45]
    assert [source.image_id(i) for i in range(4)] == [101, 102, 104, 105]
    copied = pickle.loads(pickle.dumps(source))
    assert keys(copied) == keys(source)
    assert copied.excluded == 2
    assert len(copied.first(3)) == 3
    assert sorted(copied.order(np.random.default_rng(1)).tolist()) == [0, 1, 2, 3]
    assert list(copied.all_texts((CaptionSource,))) == ["caption 1", "caption 2", "caption 4", "caption 5"]


def test_lines_of_nlvr2_and_splits_of_karpathy_leave_out_nothing(tmp_path, pictures):
    lines = '{"identifier": "dev-1-0-0", "sentence": "x"}\n{"identifier": "dev-1-1-0", "sentence": "x"}\n'
    listed = read_exclude_list(written(tmp_path / "dev.json", lines))
    assert listed.names == {f"dev-1-{pair}-img{side}.png" for pair in (0, 1) for side in (0, 1)}
    images = []
    for number, split in ((102, "val"), (103, "restval"), (105, "test")):
        images.append({"filename": f"{number}.jpg", "split": split, "sentences": [{"raw": "x"}], "cocoid": number})
    source = entry("karpathy", **pictures, exclude=written(tmp_path / "split.json", {"images": images}))
    assert [int(key[-7:-4]) for key in keys(source)] == [100, 101, 103, 104]


def test_several_lists_globs_and_braces_are_one(tmp_path, pictures):
    for name, number in (("a_val", 100), ("b_val", 101), ("a_test", 102), ("b_train", 103)):
        written(tmp_path / f"{name}.txt", f"coco:{number}")
    source = entry("karpathy", **pictures, exclude=(str(tmp_path / "?_{val,test}.txt"), str(tmp_path / "b_train.txt")))
    assert [int(key[-7:-4]) for key in keys(source)] == [104, 105]


def test_every_kind_takes_exclude():
    assert "exclude" in OF_EVERY_ENTRY
    for kind in FORMATS:
        assert source_format(kind).settings.__dataclass_fields__["exclude"].metadata["path"]


def test_shards_boxes_phrases_and_statements_stay_whole(tmp_path):
    write_tar(tmp_path / "s" / "00000.tar", [*shard_sample("a"), *shard_sample("b", url="http://x/p.jpg")])
    assert keys(entry("webdataset", shards=str(tmp_path / "s"), exclude=written(tmp_path / "l", "p.jpg"))) == [
        "00000/a"
    ]
    assert keys(entry("webdataset", shards=str(tmp_path / "s"), exclude=written(tmp_path / "l", "00000/a"))) == [
        "00000/b"
    ]
    boxes = coco_file(tmp_path, [coco_box(7, 3, [1, 2, 10, 5]), coco_box(5, 9, [1, 2, 10, 5])])
    source = entry("coco", json=str(boxes), images=str(tmp_path), exclude=written(tmp_path / "l", "a.png"))
    assert keys(source) == ["b.png"]
    assert source.regions(0).labels.tolist() == [1]
    assert [image["id"] for image in source.truth()["images"]] == [5]
    assert [each["image_id"] for each in source.truth()["annotations"]] == [5]
    phrases = mdetr_file(tmp_path, [[[0, 5]]])
    with pytest.raises(UserError, match="no sample is left"):
        entry("mdetr", json=str(phrases), images=str(tmp_path / "images"), exclude=written(tmp_path / "l", "a"))


def test_a_statement_stays_whose_second_picture_is_held_out(tmp_path):
    for name in ("l", "r", "o"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg())
    rows = [
        {"identifier": "1", "left": "l.jpg", "right": "r.jpg"},
        {"identifier": "2", "left": "l.jpg", "right": "o.jpg"},
    ]
    lines = "\n".join(json.dumps(row | {"sentence": "x", "label": "True"}) for row in rows)
    jsonl = written(tmp_path / "s.jsonl", lines)
    source = entry("statements", jsonl=jsonl, images=str(tmp_path), exclude=written(tmp_path / "list", "r.jpg"))
    assert keys(source) == ["2"]
    assert len(source.images(0)) == 2


def test_pictures_of_visual_genome_in_mdetrs_mixed_data_stay(tmp_path):
    phrases = mdetr_file(tmp_path, [[[0, 5]]], file_name="17.png")
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / "17.png")
    settings = {"json": str(phrases), "images": str(tmp_path / "images"), "exclude": written(tmp_path / "l", "coco:5")}
    with pytest.raises(UserError, match="knows none of its own by COCO's ids; give it image_data"):
        entry("mdetr", **settings)
    data = written(tmp_path / "image_data.json", [{"image_id": 17, "coco_id": 5}])
    with pytest.raises(UserError, match="exclude leaves out 1 of 1 samples"):
        entry("mdetr", **settings, image_data=data)


def test_a_copy_of_another_size_and_quality_stays(tmp_path):
    """By its hash; a picture that has nothing in common with it is kept."""
    picture, other = blots(0), blots(1)
    (tmp_path / "copy.jpg").write_bytes(encoded(picture.resize((160, 120)), "JPEG", quality=60))
    (tmp_path / "other.jpg").write_bytes(encoded(other, "JPEG"))
    images = []
    for name in ("copy", "other"):
        images.append({"filename": f"{name}.jpg", "split": "train", "sentences": [{"raw": "x"}]})
    json_file = written(tmp_path / "dataset.json", {"images": images})
    hashes = HashList(np.array([image_hash(picture)], np.uint64), ["held out"], 4)
    listed = written(tmp_path / "hashes.json", hash_list_json(hashes))
    settings = KarpathySettings(kind="karpathy", json=json_file, images=str(tmp_path), exclude=listed)
    assert keys(open_source(settings)) == ["other.jpg"]
    assert keys(open_source(settings)) == ["other.jpg"]  # from what was kept


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "names no image"),
        ("[]", "names no image"),
        ('{"images": [{"id": 1}]}', "not a list of images that are left out"),
        ('{"images": [', "not a list of images that are left out, see line 1"),
        ("[[1]]", "not a list of images that are left out"),
        ('{"form": "fiber image hashes", "hash": "dhash", "bits": 64, "distance": 4, "images": []}', "by dhash"),
        ('{"form": "fiber excluded samples", "samples": [{}]}', "not a list of images"),
    ],
)
def test_a_list_of_another_form_is_taken(tmp_path, content, told):
    with pytest.raises(UserError, match=told):
        read_exclude_list(written(tmp_path / "list", content))


def test_a_list_that_is_not_there_is_passed_over(tmp_path, pictures):
    with pytest.raises(UserError, match=r"exclude: no file at .*nothing"):
        entry("karpathy", **pictures, exclude=str(tmp_path / "nothing*.txt"))
