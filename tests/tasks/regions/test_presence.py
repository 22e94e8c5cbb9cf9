"""Names that fire, and the threshold: small cases worked out by hand."""

import numpy as np
import pytest

from fiber_cli.tasks.regions.presence import (
    Presence,
    best_threshold,
    few_labels,
    presence,
    presence_metrics,
    true_boxes_of,
)

BOX = [10.0, 10.0, 19.0, 19.0]
ELSEWHERE = [50.0, 50.0, 59.0, 59.0]


def rows(*detections):
    """(box, score, label) as predictions have them."""
    return np.array([[*box, score, label] for box, score, label in detections], np.float32).reshape(-1, 6)


def test_a_name_counts_as_found_by_a_box_elsewhere():
    truth = [{0: np.array([BOX])}]
    pairs = presence({0: rows((BOX, 0.4, 0), (ELSEWHERE, 0.9, 0), (BOX, 0.7, 1))}, truth, 3)
    assert pairs.present == pytest.approx([0.4])
    assert pairs.absent == pytest.approx([0.7, 0.0])


def test_an_image_that_was_not_read_counts():
    truth = [{0: np.array([BOX])}, {0: np.array([BOX])}]
    pairs = presence({1: rows((BOX, 0.4, 0))}, truth, 2)
    assert pairs.present == pytest.approx([0.4])
    assert pairs.absent == pytest.approx([0.0])


def test_names_that_were_not_asked_count():
    truth = [{0: np.array([BOX]), 1: np.array([BOX])}]
    found = {0: rows((BOX, 0.4, 0), (BOX, 0.9, 1), (BOX, 0.7, 2), (BOX, 0.6, 3))}
    pairs = presence(found, truth, 4, {0: [0, 3]})
    assert pairs.present == pytest.approx([0.4])
    assert pairs.absent == pytest.approx([0.6])


@pytest.mark.parametrize(
    ("present", "names", "expected"), [([3, 8, 9], 20, (2, 3)), ([4], 20, (1, 4)), ([], 9, (0, 5))]
)
def test_few_labels_are_two_present_ones_at_most_and_others(present, names, expected):
    for key in "abcdef":
        chosen = few_labels(present, names, key)
        assert few_labels(present, names, key) == chosen
        of_present = len(set(chosen) & set(present))
        assert (of_present, len(set(chosen)) - of_present) == expected
    assert len({tuple(few_labels(present, names, str(key))) for key in range(20)}) > 5


def test_few_names_have_no_say_in_the_threshold():
    of_all = Presence(np.array([0.2, 0.3]), np.array([0.1, 0.1]))
    of_few = Presence(np.array([0.9, 0.8]), np.array([0.6, 0.5]))
    metrics = presence_metrics(of_all, of_few)
    assert 0.6 < metrics["detection/threshold"] <= 0.8
    assert metrics["detection/present@0.3"] == 50
    assert metrics["detection/absent@best"] == 0
    nothing = Presence(np.array([]), np.array([0.5]))
    assert presence_metrics(of_all, nothing) == presence_metrics(of_all)


def test_a_crowd_is_present_or_absent():
    annotations = [
        {"image_id": 7, "category_id": 30, "bbox": [10, 10, 10, 10], "iscrowd": 1},
        {"image_id": 7, "category_id": 10, "bbox": [10, 10, 10, 10]},
        {"image_id": 8, "category_id": 10, "bbox": [0, 0, 5, 5]},
    ]
    (of_image,) = true_boxes_of([7], {10: 0, 20: 1, 30: 2}, annotations)
    assert {label: boxes.tolist() for label, boxes in of_image.items()} == {2: [], 0: [BOX]}
    pairs = presence({0: rows((BOX, 0.9, 2))}, [of_image], 3)
    assert pairs.present == pytest.approx([0.0])
    assert pairs.absent == pytest.approx([0.0])  # label 1 alone


def test_the_threshold_depends_on_how_many_names_are_absent():
    present = np.array([0.9, 0.8, 0.7, 0.35])
    few = Presence(present, np.array([0.6, 0.2, 0.1, 0.1]))
    many = Presence(present, np.tile(few.absent, 100))
    # At 0.36 to 0.6: 3 of 4 found, 1 of 4 fires; at 0.61 to 0.7: 3 of 4 found, none fires; below 0.35: all, 1 of 4.
    f1 = {0.5: 2 * 75 / (75 + 25 + 100), 0.65: 2 * 75 / (75 + 0 + 100), 0.3: 2 * 100 / (100 + 25 + 100)}
    assert max(f1, key=f1.get) == 0.3
    assert 0.2 < best_threshold(few) <= 0.35
    assert best_threshold(many) == best_threshold(few)


def test_shares_are_not_those_at_the_threshold():
    pairs = Presence(np.array([0.9, 0.4]), np.array([0.45, 0.1, 0.1, 0.1]))
    metrics = presence_metrics(pairs)
    assert metrics["detection/present@0.3"] == 100
    assert metrics["detection/absent@0.3"] == 25
    assert metrics["detection/present@0.5"] == 50
    assert metrics["detection/absent@0.5"] == 0
    best = metrics["detection/threshold"]
    assert metrics["detection/present@best"] == pairs.share_present(best)


def test_a_set_without_absent_names_has_a_share_of_them():
    assert presence_metrics(Presence(np.array([0.5]), np.array([]))) == {}
    assert presence_metrics(Presence(np.array([]), np.array([0.5]))) == {}
