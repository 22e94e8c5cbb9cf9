"""Files in COCO's form: what counts, what is dropped, and the place of what is wrong."""

import json

import pytest
from region_files import coco_box, coco_file

from fiber_cli.data.coco_json import file_name, image_size, read_coco_json
from fiber_cli.errors import UserError


def test_annotations_come_with_their_image_and_their_edges(tmp_path):
    annotations = [coco_box(5, 3, [1, 2, 10, 5], id=1), coco_box(7, 9, [0, 0, 5, 6]), coco_box(5, 9, [3, 3, 4, 4])]
    file = read_coco_json(coco_file(tmp_path, annotations), "a file", labelled=True)
    assert [image["id"] for image in file.images] == [7, 5]
    of_seven, of_five = file.annotations
    assert [annotation["box"] for annotation in of_seven] == [(0, 0, 5, 6)]
    assert [annotation["box"] for annotation in of_five] == [(1, 2, 11, 7), (3, 3, 7, 7)]
    assert of_five[0]["id"] == 1
    assert file.content["categories"][0]["name"] == "cat"
    assert file.dropped == 0


@pytest.mark.parametrize("bbox", [[5, 5, 0, 8], [5, 5, 1, 8], [50, 5, 8, 8], [5, 31, 8, 8], [-9, 5, 8, 8]])
def test_boxes_without_pixels_in_their_image_are_dropped_and_counted(tmp_path, bbox):
    file = read_coco_json(coco_file(tmp_path, [coco_box(7, 3, bbox), coco_box(7, 3, [1, 1, 9, 9])]), "a file")
    assert [annotation["bbox"] for annotation in file.annotations[0]] == [[1, 1, 9, 9]]
    assert file.dropped == 1


def test_crowds_are_left_out_and_not_counted(tmp_path):
    crowd = coco_box(7, 3, [1, 1, 9, 9], iscrowd=1)
    file = read_coco_json(coco_file(tmp_path, [crowd]), "a file")
    assert (file.annotations[0], file.dropped) == ([], 0)


def test_a_box_is_inside_an_image_of_unknown_size(tmp_path):
    path = coco_file(tmp_path, [coco_box(7, 3, [500, 500, 9, 9])], width=None)
    file = read_coco_json(path, "a file")
    assert len(file.annotations[0]) == 1


def test_categories_are_needed_only_where_boxes_are_labelled(tmp_path):
    path = coco_file(tmp_path, [{"image_id": 7, "bbox": [1, 1, 9, 9]}], categories=())
    assert len(read_coco_json(path, "a file").annotations[0]) == 1
    with pytest.raises(UserError, match=r"not a file, see annotations\[0\] .*category_id"):
        read_coco_json(path, "a file", labelled=True)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"images": [{"id": 7, "file_name": "a"}, {"id": 7, "file_name": "b"}]}, r"images\[1\] .*the id 7 comes twice"),
        ({"images": [{"id": 7}]}, r"images\[0\] .*coco_url"),
        ({"images": 3}, "see its outermost level"),
        ({"annotations": [{"image_id": 8, "bbox": [1, 1, 2, 2]}]}, r"annotations\[0\] .*8"),
        ({"annotations": [coco_box(7, 3, [1, 1, 2])]}, r"annotations\[0\]"),
        ({"annotations": [coco_box(7, 3, [1, 1, "x", 2])]}, r"annotations\[0\]"),
        ({"annotations": [coco_box(7, 3, [1, 1, float("inf"), 2])]}, r"annotations\[0\] .*bbox is not finite"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, change, place):
    path = coco_file(tmp_path, [])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=place) as caught:
        read_coco_json(path, "a file")
    assert str(caught.value).startswith(f"{path}: ")


def test_ids_may_be_texts_where_boxes_are_not_labelled(tmp_path):
    path = coco_file(tmp_path, [])
    path.write_text(json.dumps({"images": [{"id": "x", "file_name": "a.png"}], "annotations": [], "categories": []}))
    assert read_coco_json(path, "a file").images[0]["id"] == "x"
    with pytest.raises(UserError, match="the id 'x' is no whole number"):
        read_coco_json(path, "a file", labelled=True)


def test_sizes_and_names_of_images():
    assert image_size({"height": 3, "width": 4}) == (3, 4)
    assert image_size({"height": 3}) is None
    assert image_size({"height": 0, "width": 4}) is None
    assert file_name({"file_name": "a/b.jpg", "coco_url": "http://x/y/z.jpg"}) == "a/b.jpg"
    assert file_name({"coco_url": "http://images.cocodataset.org/val2017/9.png"}) == "val2017/9.png"
