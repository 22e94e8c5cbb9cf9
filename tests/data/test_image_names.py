"""Names of pictures: COCO's numbers wherever they come, and no other data set's taken for them."""

import json

import pytest

from fiber_cli.data.image_names import coco_number, distinct_name, names_of_file, read_coco_numbers, telling_names
from fiber_cli.errors import UserError


@pytest.mark.parametrize(
    ("file", "number"),
    [
        ("train2014/COCO_train2014_000000000009.jpg", 9),
        ("val2017/000000397133.jpg", 397133),
        ("COCO_test2015_000000000001.jpg", 1),
        ("VG_100K/2345.jpg", None),
        ("1007129816.jpg", None),
        ("0013ea2087020900.jpg", None),
        ("COCO_train2014_9.jpg", None),
    ],
)
def test_a_picture_has_another_number_in_coco(file, number):
    assert coco_number(file) == number
    assert (f"coco:{number}" in names_of_file(file)) == (number is not None)
    assert distinct_name(file) == (file.rpartition("/")[2] if number is None else f"coco:{number}")


def test_a_short_number_tells_a_picture_of_another_data_set():
    assert telling_names(["k/1", *names_of_file("VG_100K/2345.jpg")]) == set()
    assert telling_names(names_of_file("a/1007129816.jpg")) == {"1007129816.jpg"}
    assert telling_names(names_of_file("a/beach.png")) == {"beach.png"}
    assert "coco:9" in telling_names(names_of_file("COCO_train2014_000000000009.jpg"))


def test_visual_genomes_numbers_are_read_as_others(tmp_path):
    assert read_coco_numbers(None) == {}
    file = tmp_path / "image_data.json"
    file.write_text(json.dumps([{"image_id": 2, "coco_id": 9}, {"image_id": "3", "coco_id": None}]))
    assert read_coco_numbers(file) == {"2": 9}
    file.write_text(json.dumps([{"image_id": 2, "coco_id": 9}, {"image_id": 2, "coco_id": 8}]))
    with pytest.raises(UserError, match="comes twice"):
        read_coco_numbers(file)
    file.write_text('[{"coco_id": 9}]')
    with pytest.raises(UserError, match=r"not Visual Genome's image_data.json"):
        read_coco_numbers(file)
