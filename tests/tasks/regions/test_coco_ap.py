"""COCO's average precision: cases by hand, and the two libraries that compute it against each other."""

import copy

import numpy as np
import pytest
from coco_detections import detections

from benchmarks.made_boxes import made_set
from fiber_cli.errors import UserError
from fiber_cli.tasks.regions.coco_ap import ap_library, coco_ap, odinw_ap

LIBRARIES = ("faster-coco-eval", "pycocotools")


@pytest.mark.parametrize("library", LIBRARIES)
def test_coco_ap_of_a_case_by_hand(library):
    """Two categories with ids that are not consecutive, an annotation numbered 0, no area and no iscrowd keys."""
    truth = {
        "images": [{"id": 4}, {"id": 9}],
        "annotations": [
            {"id": 0, "image_id": 4, "category_id": 3, "bbox": [0, 0, 20, 20]},
            {"id": 1, "image_id": 9, "category_id": 7, "bbox": [0, 0, 50, 50]},
        ],
        "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}, {"id": 8, "name": "c"}],
    }
    # The second overlaps by 36 / 50: right up to a threshold of 0.70, so at 5 of the 10.
    found = detections([(4, 3, [0, 0, 20, 20], 0.9), (9, 7, [0, 0, 36, 50], 0.8)])
    metrics, table = coco_ap(truth, found, [image["id"] for image in truth["images"]], library)
    expected = {"ap": 75, "ap50": 100, "ap75": 50, "ap_small": 100, "ap_medium": 50}
    assert metrics == pytest.approx({f"detection/{name}": value for name, value in expected.items()})
    assert [row["name"] for row in table] == ["a", "b"]
    assert [row["ap"] for row in table] == pytest.approx([100, 50])
    assert coco_ap(truth, found, [4], library)[0]["detection/ap"] == pytest.approx(100)
    nothing = coco_ap(truth, detections([]), [image["id"] for image in truth["images"]], library)
    assert nothing[0]["detection/ap"] == 0


def assert_libraries_agree(truth, found, image_ids):
    """Number for number, with the classes that they name."""
    before = copy.deepcopy(truth)
    (fast, fast_table), (slow, slow_table) = (coco_ap(truth, found, image_ids, library) for library in LIBRARIES)
    assert truth == before, "the truth was changed"
    assert fast.keys() == slow.keys()
    assert fast == pytest.approx(slow, abs=1e-9)
    assert [row["name"] for row in fast_table] == [row["name"] for row in slow_table]
    for name in ("ap", "ap50"):
        assert [row[name] for row in fast_table] == pytest.approx([row[name] for row in slow_table], abs=1e-9)
    return fast


@pytest.mark.parametrize("seed", range(4))
def test_libraries_disagree(seed):
    metrics = assert_libraries_agree(*made_set(20, 30, 5, seed))
    assert len(metrics) == 6
    assert 1 < metrics["detection/ap"] < metrics["detection/ap50"] < 99


@pytest.mark.parametrize("seed", range(3))
def test_libraries_disagree_on_equal_scores(seed):
    assert_libraries_agree(*made_set(15, 40, 3, seed, score_steps=4))
    assert_libraries_agree(*made_set(15, 40, 3, seed, score_steps=1))


@pytest.mark.parametrize(
    "sizes",
    [
        {"crowds": 1.0},
        {"crowds": 0.5},
        {"crowds": 0.0, "largest": 20},
        {"objects": 0.2},
        {"objects": 30.0},
    ],
)
def test_libraries_disagree_on_odd_sets(sizes):
    assert_libraries_agree(*made_set(12, 20, 4, 0, **sizes))


def test_libraries_disagree_on_more_detections_than_count():
    """A hundred of an image and a category count."""
    assert_libraries_agree(*made_set(2, 500, 2, 0))


def test_libraries_disagree_where_there_are_no_detections_or_no_objects():
    truth, found, image_ids = made_set(6, 10, 3, 0)
    assert_libraries_agree(truth, detections([]), image_ids)
    assert_libraries_agree(truth, found.take(np.arange(4)), image_ids)
    assert assert_libraries_agree({**truth, "annotations": []}, found, image_ids) == {}
    assert assert_libraries_agree({**truth, "annotations": []}, detections([]), image_ids) == {}
    assert_libraries_agree(truth, found, image_ids[:2])


def test_libraries_disagree_on_what_is_ignored_or_has_no_area():
    truth, found, image_ids = made_set(8, 20, 3, 0)
    for number, annotation in enumerate(truth["annotations"]):
        if number % 3 == 0:
            annotation["ignore"] = 1
        if number % 4 == 0:
            del annotation["area"]
        if number % 5 == 0:
            del annotation["iscrowd"]
        if number % 7 == 0:
            annotation["bbox"][2] = 0
    assert_libraries_agree(truth, found, image_ids)


def test_libraries_disagree_on_objects_with_masks():
    """The areas are those of the masks, which the boxes of the truth may belong to."""
    truth, found, image_ids = made_set(8, 20, 3, 1)
    for annotation in truth["annotations"]:
        x, y, width, height = annotation["bbox"]
        triangle = [x, y, x + width, y, x, y + height]
        annotation |= {"segmentation": [triangle], "area": width * height / 2}
    assert_libraries_agree(truth, found, image_ids)


def test_libraries_disagree_on_ids_that_no_machine_number_holds():
    truth, found, _ = made_set(6, 20, 3, 2)
    far = 10**30
    for image in truth["images"]:
        image["id"] += far
    for annotation in truth["annotations"]:
        annotation["image_id"] += far
    images = np.array([image + far for image in found.images.tolist()], object)
    assert_libraries_agree(truth, found._replace(images=images), [image["id"] for image in truth["images"]])


def test_another_library_is_taken():
    assert ap_library(None) == "faster-coco-eval"
    assert [ap_library(name) for name in LIBRARIES] == list(LIBRARIES)
    with pytest.raises(UserError, match="--ap-library 'coco': must be one of faster-coco-eval, pycocotools"):
        ap_library("coco")


def test_odinw_is_a_plain_mean():
    assert odinw_ap({"a": 10, "b": 40}) == {"odinw/ap": 25, "odinw/ap/a": 10, "odinw/ap/b": 40}
