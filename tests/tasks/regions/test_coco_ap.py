"""COCO's average precision of cases by hand."""

import pytest
from coco_detections import detections

from fiber_cli.tasks.regions.coco_ap import coco_ap, odinw_ap


def test_coco_ap_of_a_case_by_hand():
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
    metrics, table = coco_ap(truth, found, [image["id"] for image in truth["images"]])
    expected = {"ap": 75, "ap50": 100, "ap75": 50, "ap_small": 100, "ap_medium": 50}
    assert metrics == pytest.approx({f"detection/{name}": value for name, value in expected.items()})
    assert [row["name"] for row in table] == ["a", "b"]
    assert [row["ap"] for row in table] == pytest.approx([100, 50])
    assert coco_ap(truth, found, [4])[0]["detection/ap"] == pytest.approx(100)
    assert coco_ap(truth, detections([]), [image["id"] for image in truth["images"]])[0]["detection/ap"] == 0


def test_odinw_is_a_plain_mean():
    assert odinw_ap({"a": 10, "b": 40}) == {"odinw/ap": 25, "odinw/ap/a": 10, "odinw/ap/b": 40}
