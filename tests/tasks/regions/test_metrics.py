"""Phrase and referring metrics against stored results and hand-made cases."""

import numpy as np
import pytest

from fiber_cli.tasks.regions.detection_rows import ranked
from fiber_cli.tasks.regions.metrics import (
    ExpressionDetections,
    PhraseDetections,
    overlaps,
    phrase_recall,
    referring_accuracy,
)


def test_referring_accuracy_of_the_stored_case(cases):
    case = cases["refexp"]
    for name in ("refcoco", "refcoco+"):
        expressions = []
        for key in (key for key, dataset in case["dataset_name"].items() if dataset == name):
            x, y, w, h = case["gt_xywh"][key]
            found = case["predictions"][key]
            rows = np.c_[found["boxes"], found["scores"], np.zeros(len(found["scores"]))]
            expressions.append(ExpressionDetections(ranked(rows), np.array([x, y, x + w, y + h])))
        result = referring_accuracy(expressions)
        stored = [100 * value for value in case["result_precision_at_1_5_10_sorted"][name]]
        names = ("acc@giou50", "r@5@giou50", "r@10@giou50")
        assert [result[f"refexp/{each}"] for each in names] == pytest.approx(stored)
    assert result["refexp/acc@iou50"] == 100  # image 3: the first box has an IoU of 0.516, a GIoU of 0.472
    iou, giou = overlaps(rows[:, :4], expressions[0][1][None])
    np.testing.assert_allclose(giou[:, 0], case["note_image3_giou"], rtol=1e-6)
    np.testing.assert_allclose(iou[:, 0], case["note_image3_iou"], rtol=1e-6)


def test_nothing_found_is_a_miss():
    truth = np.array([0.0, 0, 10, 10])
    missed = ExpressionDetections(np.empty((0, 6)), truth)
    right = ExpressionDetections(np.array([[0, 0, 10, 10, 0.1, 0]]), truth)
    assert set(referring_accuracy([missed, right]).values()) == {50.0}
    phrase = PhraseDetections(np.empty((0, 4)), truth[None], ["people"])
    assert phrase_recall([phrase])["grounding/any_box/r@10/people"] == 0
