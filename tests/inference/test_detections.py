"""From a task's rows to detections, and to other packages."""

import sys

import numpy as np
import pytest

from fiber_cli.errors import UserError
from fiber_cli.inference.detections import Detection, best_of_objects, detections_of, to_supervision


def test_boxes_of_pixels_become_edges_inside_the_picture():
    rows = np.array([[1, 2, 9, 9, 0.5, 1], [0, 0, 30, 4.5, 0.25, 0]], float)
    before = rows.copy()
    assert detections_of(rows, ["cat", "dog"], (20, 10)) == [
        Detection("dog", 1, 0.5, (1.0, 2.0, 10.0, 10.0)),
        Detection("cat", 0, 0.25, (0.0, 0.0, 20.0, 5.5)),
    ]
    assert (rows == before).all()
    assert detections_of(rows[:0], [], (20, 10)) == []


def test_an_object_is_there_under_several_names_or_is_lost():
    star = (10.0, 10.0, 60.0, 60.0)
    found = [
        Detection("red star", 0, 0.9, star),
        Detection("ring", 3, 0.8, (40.0, 10.0, 90.0, 60.0)),
        Detection("star", 1, 0.7, (11.0, 10.0, 61.0, 60.0)),
        Detection("object", 2, 0.6, star),
    ]
    assert best_of_objects(found, 0.8) == found[:2]
    assert best_of_objects(found, 0.98) == found[:3]
    assert best_of_objects(found, 1) == found
    assert best_of_objects([], 0.8) == []


def test_supervision(monkeypatch):
    detections = [Detection("dog", 3, 0.75, (1.0, 2.0, 30.5, 40.0)), Detection("cat", 0, 0.5, (0.0, 0.0, 5.0, 6.0))]
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        to_supervision(detections)
    monkeypatch.undo()
    pytest.importorskip("supervision")
    converted = to_supervision(detections)
    assert converted.xyxy.tolist() == [[1, 2, 30.5, 40], [0, 0, 5, 6]]
    assert converted.confidence.tolist() == [0.75, 0.5]
    assert converted.class_id.tolist() == [3, 0]
    assert converted.data["class_name"].tolist() == ["dog", "cat"]
    assert len(to_supervision([])) == 0


def test_supervision_is_given_arrays_of_its_types(monkeypatch):
    """Also where the package is not installed: its constructor is taken for the fields."""
    package = type(sys)("supervision")
    package.Detections = lambda **fields: fields
    monkeypatch.setitem(sys.modules, "supervision", package)
    fields = to_supervision([Detection("dog", 3, 0.75, (1.0, 2.0, 30.5, 40.0))])
    assert fields["xyxy"].dtype == fields["confidence"].dtype == np.float32
    assert fields["xyxy"].shape == (1, 4)
    assert fields["class_id"].tolist() == [3]
    assert to_supervision([])["xyxy"].shape == (0, 4)
