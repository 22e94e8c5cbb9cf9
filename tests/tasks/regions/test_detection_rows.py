"""The order of the rows that are predicted."""

import numpy as np

from fiber_cli.tasks.regions.detection_rows import ranked


def test_phrases_are_ranked_as_published(cases):
    case = cases["flickr_post_process"]
    factor = case["orig_hw"][1] / case["network_wh"][0]
    rows = ranked(np.c_[np.array(case["boxes"]) * factor, case["scores"], case["labels"]])
    for label, (boxes, scores) in enumerate(zip(case["out_boxes"], case["out_scores"], strict=True), 1):
        of_label = rows[rows[:, 5] == label]
        np.testing.assert_allclose(of_label[:, :4], np.reshape(boxes[:-1], (-1, 4)))
        np.testing.assert_allclose(of_label[:, 4], scores)


def test_equal_scores_are_ordered_by_box():
    rows = np.array([[1, 2, 3, 4, 0.5, 0], [1, 3, 0, 0, 0.5, 1], [0, 9, 9, 9, 0.5, 2], [0, 0, 0, 0, 0.7, 3]])
    assert ranked(rows)[:, 5].tolist() == [3, 1, 0, 2]
