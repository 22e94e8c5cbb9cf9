"""Karpathy's JSON: splits, captions and images are read, and what is wrong is told."""

import json

import numpy as np
import pytest

from fiber_cli.data.each_caption import EachCaption
from fiber_cli.data.source import BadSample, sample_id
from fiber_cli.data.sources.karpathy import KarpathySource, read_karpathy
from fiber_cli.errors import UserError


def test_splits_captions_and_images(karpathy_coco):
    source = KarpathySource(karpathy_coco / "dataset_coco.json", karpathy_coco / "images")
    assert [source.key(i) for i in range(len(source))] == ["sub/0.jpg", "sub/1.jpg", "sub/4.jpg"]
    assert source.captions(1) == ("caption 1 0", "caption 1 1")
    assert source.image(0).size == (40, 30)
    assert sample_id(source, 0) == "dataset_coco:train/sub/0.jpg"
    assert sorted(source.order(np.random.default_rng(0))) == [0, 1, 2]
    with pytest.raises(BadSample, match=r"no such file.*4.jpg"):
        source.image(2)
    both = KarpathySource(karpathy_coco / "dataset_coco.json", karpathy_coco / "images", split=["val", "test"])
    assert [both.key(i) for i in range(2)] == ["sub/2.jpg", "sub/3.jpg"]
    assert len(both) == 2
    source.max_pixels = 100
    with pytest.raises(BadSample, match="more than 100 pixels"):
        source.image(0)


def test_images_go_by_their_coco_id_where_the_file_has_it(karpathy_coco):
    file = karpathy_coco / "dataset_coco.json"
    source = KarpathySource(file, karpathy_coco / "images")
    assert [source.image_id(i) for i in range(3)] == [100, 101, 104]
    content = json.loads(file.read_text())
    for image in content["images"]:
        del image["cocoid"]
    file.write_text(json.dumps(content))
    source = KarpathySource(file, karpathy_coco / "images")
    assert source.image_id(0) == "sub/0.jpg"


def test_restval_reads_as_train(karpathy_coco):
    splits = [entry.split for entry in read_karpathy(karpathy_coco / "dataset_coco.json")]
    assert splits == ["train", "train", "val", "test", "train"]


def test_what_is_wrong_is_told(karpathy_coco):
    file, images = karpathy_coco / "dataset_coco.json", karpathy_coco / "images"
    for split, match in (("dev", r"no images of split dev.*are: test, train, val"), ([], "none given")):
        with pytest.raises(UserError, match=match):
            KarpathySource(file, images, split=split)
    with pytest.raises(UserError, match=r"absent.json.*No such file.*dataset_coco.json"):
        KarpathySource(karpathy_coco / "absent.json", images)
    with pytest.raises(UserError, match="no such folder of images"):
        KarpathySource(file, karpathy_coco / "absent")
    with pytest.raises(UserError, match=r"none of 3 images looked for, such as sub/0.jpg"):
        KarpathySource(file, karpathy_coco)
    file.write_text(file.read_text()[:-20])
    with pytest.raises(UserError, match="not valid JSON"):
        KarpathySource(file, images)
    for content in ("[]", '{"images": 3}', '{"annotations": []}'):
        file.write_text(content)
        with pytest.raises(UserError, match=r"not a Karpathy JSON, has no list 'images'; wanted is"):
            KarpathySource(file, images)
    file.write_text('{"images": [{"filename": "a.jpg"}]}')
    with pytest.raises(UserError, match=r"not a Karpathy JSON, see images\[0\] \(KeyError: 'sentences'\)"):
        KarpathySource(file, images)
    file.write_text('{"images": []}')
    with pytest.raises(UserError, match=r"no images of split train.*are: none"):
        KarpathySource(file, images)


def rewritten(file, change):
    """The file with its images changed."""
    content = json.loads(file.read_text())
    change(content["images"])
    file.write_text(json.dumps(content))
    return KarpathySource(file, file.parent / "images")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("filename", "0.jpg", "the file 'sub/0.jpg' comes twice"),
        ("cocoid", 100, "the cocoid 100 comes twice"),
        ("cocoid", "100", "the cocoid 100 comes twice"),
    ],
)
def test_images_that_come_twice_are_taken(karpathy_coco, key, value, said):
    with pytest.raises(UserError, match=said):
        rewritten(karpathy_coco / "dataset_coco.json", lambda images: images[1].update({key: value}))


@pytest.mark.parametrize(
    "bad",
    [
        {"sentences": None},
        {"sentences": [{"raw": 3}]},
        {"sentences": [{"tokens": []}]},
        {"split": None},
        {"filename": 7},
        {"filepath": ["sub"]},
        {"cocoid": "one"},
    ],
)
def test_one_bad_record_refuses_the_file(karpathy_coco, bad, capsys):
    source = rewritten(karpathy_coco / "dataset_coco.json", lambda images: images[1].update(bad))
    assert [source.key(i) for i in range(len(source))] == ["sub/0.jpg", "sub/4.jpg"]
    assert source.captions(1) == ("caption 4 0", "caption 4 1")
    assert [place for place, _ in source.left_out] == ["images[1]"]
    assert "dataset_coco.json: 1 of 5 images is left out: images[1] (" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"see images\[1\]"):
        read_karpathy(karpathy_coco / "dataset_coco.json", strict=True)


def test_half_of_a_file_is_left_out(karpathy_coco):
    def spoil(images):
        for image in images[:2]:
            del image["sentences"]

    with pytest.raises(UserError, match=r"see images\[0\] \(KeyError: 'sentences'\), 2 of 5 such"):
        rewritten(karpathy_coco / "dataset_coco.json", spoil)


def test_real_flickr8k(shared):
    folder = shared / "data" / "flickr8k-1k"
    json_file, images = folder / "dataset_flickr8k.json", folder / "images"
    train, val = KarpathySource(json_file, images), KarpathySource(json_file, images, "val")
    assert (len(train), len(val)) == (800, 100)
    for source in (train, val):
        assert all(len(source.captions(i)) == 5 for i in range(len(source)))
    keys = {train.key(i) for i in range(800)} | {val.key(i) for i in range(100)}
    assert len(keys) == 900
    assert train.captions(0)[1] == "a man stands alone near a white fence ."
    for i in range(0, 800, 40):
        assert min(train.image(i).size) > 90
    each = EachCaption(train)
    assert len(each) == 4000
    assert each.captions(3999) == (train.captions(799)[4],)
