"""Detection data in COCO's JSON form."""

import json
import pickle

import numpy as np
import pytest
from region_files import coco_box, coco_file, write_image

from fiber_cli.data.object_source import few_shot
from fiber_cli.data.sources.coco import CocoSource
from fiber_cli.errors import UserError


def test_boxes_labels_and_ids_of_a_file_are_read(tmp_path):
    annotations = [
        coco_box(7, 9, [1, 2, 10, 5]),
        coco_box(7, 3, [30, 20, 30, 30], iscrowd=0),
        coco_box(7, 3, [0, 0, 9, 9], iscrowd=1),
        coco_box(7, 3, [5, 5, 0, 8]),
        coco_box(7, 3, [50, 5, 8, 8]),
    ]
    source = CocoSource(coco_file(tmp_path, annotations), tmp_path)
    assert source.names == ["cat", "traffic light"]
    assert source.category_ids == [3, 9]
    assert [source.image_id(i) for i in range(2)] == [7, 5]
    assert source.dropped == 2
    assert len(source) == 2
    boxes, labels, size = source.regions(0)
    assert boxes.tolist() == [[1, 2, 11, 7], [30, 20, 60, 50]]
    assert labels.tolist() == [1, 0]
    assert size == (30, 40)
    assert source.regions(1).boxes.shape == (0, 4)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.regions(0).labels.tolist() == [1, 0]
    assert copy.image(0).size == (40, 30)


def test_the_background_of_exports_is_left_out(tmp_path):
    exported = [{"id": 0, "name": "cells", "supercategory": "none"}, {"id": 1, "name": "red", "supercategory": "cells"}]
    plain = [{"id": 0, "name": "cat", "supercategory": "none"}, {"id": 1, "name": "dog", "supercategory": "none"}]

    def names(categories, used):
        return CocoSource(coco_file(tmp_path, [coco_box(7, used, [1, 1, 9, 9])], categories), tmp_path).names

    assert names(exported, used=1) == ["red"]
    assert names(exported, used=0) == ["cells", "red"]
    assert names(plain, used=1) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("annotation", "place"),
    [
        (coco_box(8, 3, [1, 1, 2, 2]), r"annotations\[1\]"),
        (coco_box(7, 4, [1, 1, 2, 2]), "no category 4"),
        (coco_box(7, 3, [1, 1, 2]), r"annotations\[1\]"),
        (coco_box(7, 3, [1, 1, float("nan"), 2]), "not finite"),
        (coco_box(7, 3, "abc"), r"annotations\[1\]"),
        ({"image_id": 7, "category_id": 3}, "bbox"),
    ],
)
def test_a_wrong_coco_file_is_told_with_its_place(tmp_path, annotation, place):
    path = coco_file(tmp_path, [coco_box(7, 3, [1, 1, 9, 9]), annotation])
    with pytest.raises(UserError, match=place) as error:
        CocoSource(path, tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "lists no image"),
        ({"images": [{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "b.png"}]}, "the id 7 comes twice"),
        ({"images": [{"id": "seven", "file_name": "a.png"}]}, "the id 'seven' is no whole number"),
        ({"images": [{"id": 7}]}, r"images\[0\]"),
        ({"categories": [{"id": 1}]}, r"categories\[0\]"),
        ({"categories": [{"id": 1, "name": 7}]}, r"categories\[0\]"),
    ],
)
def test_malformed_files_are_told(tmp_path, change, message):
    path = coco_file(tmp_path, [])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        CocoSource(path, tmp_path)


def test_what_is_scored_is_another_than_what_was_read(tmp_path):
    annotations = [
        coco_box("7", "9", [1, "2", 10, 5], area=None, iscrowd=None),
        coco_box(7, 3, [0, 0, 9, 9], area=70.5, iscrowd="1"),
        coco_box(7, 3, [4, 4, 1, 9]),
        coco_box(5, 3, []),
        coco_box(5, 3, None, segmentation=[[10, 10, 30, 10, 30, 25, 10, 25]]),
    ]
    source = CocoSource(coco_file(tmp_path, annotations), tmp_path)
    truth = source.truth()
    assert truth["images"] == [{"id": 7}, {"id": 5}]
    assert truth["categories"] == [{"id": 3, "name": "cat"}, {"id": 9, "name": "traffic light"}]
    read = [tuple(annotation.values()) for annotation in truth["annotations"]]
    assert read == [
        (7, 9, [1, 2, 10, 5], 50, 0, 0),
        (7, 3, [0, 0, 9, 9], 70.5, 1, 0),
        (7, 3, [4, 4, 1, 9], 9, 0, 0),
        (5, 3, [10, 10, 20, 15], 300, 0, 0),
    ]
    assert [source.regions(i).boxes.tolist() for i in range(2)] == [[[1, 2, 11, 7]], [[10, 10, 30, 25]]]
    assert (source.dropped, source.scored_all_the_same, source.trained_boxes) == (2, 1, 2)


def test_copies_are_scored_twice(tmp_path):
    path = coco_file(tmp_path, [coco_box(7, 3, [1, 1, 9, 9]), coco_box(7, 9, [1, 1, 9, 9])])
    truth = CocoSource(path, tmp_path, shots=1).truth()
    assert (len(truth["images"]), len(truth["annotations"])) == (1, 2)


def test_names_that_contradict_each_other_are_taken(tmp_path):
    categories = [{"id": 3, "name": "traffic light"}, {"id": 9, "name": "traffic  light "}]
    with pytest.raises(UserError, match="the name 'traffic light' comes twice in categories"):
        CocoSource(coco_file(tmp_path, [coco_box(7, 3, [1, 1, 9, 9])], categories), tmp_path)
    # Roboflow's background of an export with one class has the name of that class.
    exported = [{"id": 0, "name": "cat", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "cat"}]
    assert CocoSource(coco_file(tmp_path, [coco_box(7, 1, [1, 1, 9, 9])], exported), tmp_path).names == ["cat"]


def test_objects365_lies_elsewhere_than_it_says(tmp_path):
    write_image(tmp_path / "train" / "patch8" / "objects365_v1_00420917.jpg")
    path = coco_file(tmp_path, [], file_name="images/v1/patch8/objects365_v1_00420917.jpg")
    source = CocoSource(path, tmp_path / "train")
    assert source.image(0).size == (40, 30)
    assert source.key(0) == "images/v1/patch8/objects365_v1_00420917.jpg"


def test_lvis_names_its_pictures_by_address(tmp_path):
    write_image(tmp_path / "val2017" / "9.png")
    path = coco_file(tmp_path, [], file_name=None, coco_url="http://images.cocodataset.org/val2017/9.png")
    assert CocoSource(path, tmp_path).image(0).size == (40, 30)


def test_every_category_gets_its_shots():
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 4, rng.integers(0, 3)).tolist() for _ in range(200)]
    chosen = few_shot(labels, 3, seed=1)
    counts = [sum(label in labels[i] for i in chosen) for label in range(4)]
    assert min(counts) >= 3
    assert len(set(chosen)) == len(chosen) <= 12
    assert all(labels[i] for i in chosen)
    assert few_shot(labels, 3, seed=1) == chosen != few_shot(labels, 3, seed=2)


def test_shots_are_copied(tmp_path):
    path = coco_file(tmp_path, [coco_box(7, 3, [1, 1, 9, 9]), coco_box(7, 9, [1, 1, 9, 9])])
    assert len(CocoSource(path, tmp_path, shots=1)) == 8
    assert len(CocoSource(path, tmp_path, shots=10)) == 1
    # A file that holds the shots already.
    copied = CocoSource(path, tmp_path, copies=3)
    assert [copied.image_id(i) for i in range(len(copied))] == [7, 5] * 3
    source = CocoSource(path, tmp_path, shots=3, copies=2)
    assert [source.image_id(i) for i in range(2)] == [7, 7]
    assert source.regions(1).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("first", "second"),
    [("hot_dog", "hot dog"), ("hot  dog_", "hot_dog"), ("traffic_light", " traffic light")],
)
def test_names_that_a_prompt_shows_alike_are_taken(tmp_path, first, second):
    categories = [{"id": 3, "name": first}, {"id": 9, "name": second}]
    words = " ".join(first.replace("_", " ").split())
    with pytest.raises(UserError, match=f"the name '{words}' comes twice in categories"):
        CocoSource(coco_file(tmp_path, [coco_box(7, 3, [1, 1, 9, 9])], categories), tmp_path)


def test_names_that_differ_in_parentheses_are_two_as_in_lvis(tmp_path):
    categories = [{"id": 3, "name": "bow_(weapon)"}, {"id": 9, "name": "bow_(decorative_ribbons)"}]
    source = CocoSource(coco_file(tmp_path, [coco_box(7, 3, [1, 1, 9, 9])], categories), tmp_path)
    assert source.names == ["bow_(weapon)", "bow_(decorative_ribbons)"]


@pytest.mark.parametrize(
    ("ids", "said"),
    [((1, 2, 1), 1), ((1, 2, "2"), 2), ((5, 5, 6), 5), ((1, 2, 3), None), ((None, None, 3), None)],
)
def test_an_annotation_comes_twice(tmp_path, ids, said):
    boxes = [coco_box(image, 3, [1, 1, 9, 9], id=own) for image, own in zip((7, 5, 7), ids, strict=True)]
    path = coco_file(tmp_path, boxes)
    if said is None:
        assert CocoSource(path, tmp_path).trained_boxes == 3
        return
    with pytest.raises(UserError, match=rf"the id {said} comes twice in annotations; each must come once"):
        CocoSource(path, tmp_path)


def test_an_image_comes_under_two_ids(tmp_path):
    path = coco_file(tmp_path, [coco_box(7, 3, [1, 1, 9, 9]), coco_box(5, 3, [2, 2, 9, 9])], file_name="b.png")
    with pytest.raises(UserError, match=r"the file name 'b\.png' comes twice in images; each must come once"):
        CocoSource(path, tmp_path)
