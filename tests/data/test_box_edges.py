"""Boxes of edges, and of first and last pixels."""

import json

import numpy as np
import pytest

from fiber_cli.data.box_edges import box_array, flip_boxes, has_area_inside, inclusive, scale_boxes


@pytest.fixture
def cases(shared):
    return json.loads((shared / "golden" / "fine_data_cases.json").read_text())


def test_boxes_change_as_in_the_published_code(cases):
    case = cases["boxlist_ops"]
    box, (width, height) = np.array(case["in"]), case["wh"]
    np.testing.assert_allclose(flip_boxes(box, width), case["flip_lr"])
    np.testing.assert_allclose(scale_boxes(box, (height, width), (75, 200)), case["resize_200x75"])
    # Edges of the box, whose last pixels are x2 and y2.
    edges = box + np.array([0, 0, 1, 1])
    assert (edges[:, 2:] - edges[:, :2]).tolist() == [case["to_xywh"][0][2:]]
    np.testing.assert_allclose(inclusive(edges, (height, width))[0], case["in"])
    boxes = np.array([[-10.0, -5, 150, 70], [120, 10, 140, 20]])
    clipped, kept = inclusive(boxes + np.array([0, 0, 1, 1]), (height, width))
    np.testing.assert_allclose(clipped, case["clip"])
    np.testing.assert_allclose(clipped[kept], case["clip_remove_empty"])


def test_a_line_of_pixels_is_no_box():
    boxes, has_area = inclusive(box_array([[0, 0, 1, 9], [0, 0, 9, 1], [0, 0, 2, 2], [-5, -5, 1, 1]]), (30, 40))
    assert has_area.tolist() == [False, False, True, False]
    assert boxes[2].tolist() == [0, 0, 1, 1]


def test_box_arrays_have_four_columns_whatever_they_are_made_of():
    assert box_array([]).shape == (0, 4)
    assert box_array((1, 2, 3, 4)).tolist() == [[1, 2, 3, 4]]
    assert box_array([[1, 2, 3, 4]] * 2).dtype == np.float32


def test_a_box_without_an_area_has_one():
    boxes = box_array([[0, 0, 9, 9], [5, 5, 5, 9], [5, 9, 9, 5], [40, 0, 50, 9], [-9, 0, 0, 9], [-9, 0, 0.5, 9]])
    assert has_area_inside(boxes, (30, 40)).tolist() == [True, False, False, False, False, True]
    assert has_area_inside(boxes, None).tolist() == [True, False, False, True, True, True]
    assert has_area_inside(box_array([]), (30, 40)).tolist() == []
