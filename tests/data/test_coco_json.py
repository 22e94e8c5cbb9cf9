"""Files in COCO's form: whatever a tool writes is read in one form, or told."""

import json

import pytest
from region_files import coco_box, coco_file

from fiber_cli.data.coco_json import file_name, has_captions, image_size, read_coco_json
from fiber_cli.data.object_columns import Use
from fiber_cli.errors import UserError

SQUARE = [[10, 10, 30, 10, 30, 25, 10, 25]]


def read(tmp_path, boxes, **change):
    path = coco_file(tmp_path, boxes)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return read_coco_json(path, "a detection JSON", labelled=True)


def one(tmp_path, **annotation):
    """The one object of a file with an annotation of image 7, the first, that is changed so."""
    box = coco_box(7, 3, [1, 2, 10, 5], area=40, iscrowd=0) | annotation
    [thing] = read(tmp_path, [{key: value for key, value in box.items() if value != "missing"}]).objects[0]
    return thing


@pytest.mark.parametrize(
    ("written", "area"), [(None, 50), ("missing", 50), ("40.5", 40.5), (0, 0), (40, 40), ("40", 40)]
)
def test_an_area_is_lost(tmp_path, written, area):
    assert one(tmp_path, area=written).area == area


@pytest.mark.parametrize("written", [None, "missing", 0, "0", "0.0", False, 0.0, "false"])
def test_an_object_becomes_a_crowd(tmp_path, written):
    assert one(tmp_path, iscrowd=written).use is Use.TRAINED


@pytest.mark.parametrize("written", [1, "1", "1.0", True, 1.0])
def test_a_crowd_becomes_an_object(tmp_path, written):
    assert one(tmp_path, iscrowd=written).use is Use.CROWD


def test_numbers_as_text_are_lost(tmp_path):
    thing = one(tmp_path, image_id="7", category_id="3", bbox=["1", "2.5", 10, "5"])
    assert (thing.box, thing.category) == ((1, 2.5, 10, 5), 3)
    images = [{"id": "7", "file_name": "a.png", "width": "40", "height": "30.0"}]
    file = read(tmp_path, [coco_box(7, "9", [1, 2, 10, 5])], images=images)
    assert (file.images[0].identifier, file.images[0].size) == (7, (30, 40))
    assert file.objects[0][0].category == 9


@pytest.mark.parametrize("bbox", [None, "missing", []])
def test_the_box_of_a_mask_is_lost(tmp_path, bbox):
    assert one(tmp_path, bbox=bbox, segmentation=SQUARE, area=None).box == (10, 10, 20, 15)
    counts = [30 * 10 + 10, 15, 30 * 40 - 25 - 300]
    assert one(tmp_path, bbox=bbox, segmentation={"size": [30, 40], "counts": counts}).box == (10, 10, 1, 15)


@pytest.mark.parametrize("bbox", [[0, 0, 0, 0], [None] * 4, [0.0, 0.0, 0.0, 0.0], [0, 0, None, None]])
def test_a_blank_box_goes_before_a_mask(tmp_path, bbox):
    assert one(tmp_path, bbox=bbox, segmentation=SQUARE).box == (10, 10, 20, 15)
    counts = [30 * 10 + 10, 15, 30 * 40 - 25 - 300]
    assert one(tmp_path, bbox=bbox, segmentation={"size": [30, 40], "counts": counts}).box == (10, 10, 1, 15)


def test_a_blank_box_beside_no_mask_is_an_object(tmp_path):
    box = coco_box(7, 3, [0, 0, 0, 0])
    file = read(tmp_path, [box, box | {"segmentation": [[1, 2]]}, box | {"segmentation": []}])
    assert (file.objects, file.without_area, file.left_out) == ([[], []], 3, [])
    file = read(tmp_path, [box] * 2 + [box | {"bbox": [None] * 4, "segmentation": [[1, 2]]}])
    assert (file.without_area, [place for place, _ in file.left_out]) == (2, ["annotations[2]"])


def test_a_mask_goes_before_a_box(tmp_path):
    assert one(tmp_path, segmentation=SQUARE).box == (1, 2, 10, 5)


def test_boxes_that_are_none_are_objects(tmp_path):
    boxes = [[], [5, 5, 0, 8], [5, 5, 8, -3], [50, 5, 8, 8], [-9, 0, 9, 9], [1, 1, 9, 9]]
    file = read(tmp_path, [coco_box(7, 3, box) for box in boxes])
    assert [thing.box for thing in file.objects[0]] == [(1, 1, 9, 9)]
    assert (file.without_area, file.thin, file.left_out) == (5, 0, [])


def test_a_thin_box_is_trained_on_or_not_scored(tmp_path):
    file = read(tmp_path, [coco_box(7, 3, [1, 1, 1, 9]), coco_box(7, 3, [1, 1, 9, 0.5])])
    assert [thing.use for thing in file.objects[0]] == [Use.SCORED] * 2
    assert file.trained == [[], []]
    assert (file.without_area, file.thin) == (0, 2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (coco_box(8, 3, [1, 1, 9, 9]), "there is no image 8"),
        (coco_box(7, 4, [1, 1, 9, 9]), "there is no category 4"),
        (coco_box(7, None, [1, 1, 9, 9]), "category_id None is no whole number"),
        (coco_box(7, 3, [1, 1, 9]), "not enough values"),
        (coco_box(7, 3, [1, 1, None, 9]), "bbox: None is no number"),
        (coco_box(7, 3, [1, 1, 9, float("nan")]), "bbox is not finite"),
        (coco_box(7, 3, [1e308, 1, 1e308, 9]), "bbox 1e+308 is too large"),
        (coco_box(7, 3, [10**400, 1, 9, 9]), "bbox is not finite"),
        (coco_box(7, 3, [1, 1, 9, 9], area=10**400), "area is not finite"),
        (coco_box(7, 3, "1234"), "bbox must be a list, it is '1234'"),
        (coco_box(7, 3, [1, 1, 9, 9], iscrowd=2), "iscrowd must be 0 or 1, it is 2"),
        (coco_box(7, 3, [1, 1, 9, 9], iscrowd="yes"), "iscrowd must be 0 or 1"),
        (coco_box(7, 3, [1, 1, 9, 9], area=-4), "area must not be negative"),
        (coco_box(7, 3, [1, 1, 9, 9], area="big"), "could not convert"),
        ({"image_id": 7, "category_id": 3}, "neither a bbox nor a segmentation"),
        ({"image_id": 7, "category_id": 3, "segmentation": [[1, 2]]}, "three corners"),
        ({"category_id": 3, "bbox": [1, 1, 9, 9]}, "KeyError: 'image_id'"),
        (None, "TypeError"),
    ],
)
def test_one_bad_annotation_refuses_the_file(tmp_path, wrong, said, capsys):
    good = [coco_box(7, 3, [1, 1, 9, 9]), coco_box(5, 9, [1, 1, 9, 9])]
    file = read(tmp_path, [good[0], wrong, good[1]])
    assert [len(of_image) for of_image in file.objects] == [1, 1]
    [(place, reason)] = file.left_out
    assert place == "annotations[1]"
    assert said in reason
    assert "instances.json: 1 of 3 annotations is left out: annotations[1]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", [{"file_name": None}, {"height": 0}, {"width": -40}, {"height": "tall"}, {"file_name": 3}]
)
def test_one_bad_image_refuses_the_file(tmp_path, change):
    images = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(4)]
    images[2] |= change
    boxes = [coco_box(i, 3, [1, 1, 9, 9]) for i in (0, 1, 2, 2, 2, 3)]
    file = read(tmp_path, boxes, images=images)
    assert [image.identifier for image in file.images] == [0, 1, 3]
    # Its boxes are not three more bad records.
    assert [place for place, _ in file.left_out] == ["images[2]"]
    assert [len(of_image) for of_image in file.objects] == [1, 1, 1]


def crowded(tmp_path, bad_images, annotations_each=5, bad_each=30, count=100, **change):
    """A file of images with boxes; the record of some is changed, and they have `bad_each`."""
    images, boxes = [], []
    for number in range(count):
        image = {"id": number, "file_name": f"{number}.png", "width": 40, "height": 30}
        images.append(image | change if number in bad_images else image)
        boxes += [coco_box(number, 3, [1, 1, 9, 9])] * (bad_each if number in bad_images else annotations_each)
    return read(tmp_path, boxes, images=[{k: v for k, v in image.items() if v != "missing"} for image in images])


@pytest.mark.parametrize("written", [None, "missing", 3.5, " "])
@pytest.mark.parametrize("bad_images", [[3], [0, 99], [1, 2, 50]])
def test_an_image_without_its_id_refuses_the_file(tmp_path, written, bad_images, capsys):
    file = crowded(tmp_path, bad_images, id=written)
    assert [image.identifier for image in file.images] == [i for i in range(100) if i not in bad_images]
    assert all(len(of_image) == 5 for of_image in file.objects)
    places = [f"annotations[{5 * number + 25 * n}]" for n, number in enumerate(bad_images)]
    reasons = [f"there is no image {number}, named by 30 of the annotations" for number in bad_images]
    assert file.left_out[len(bad_images) :] == list(zip(places, reasons, strict=True))
    assert reasons[0] in capsys.readouterr().err


@pytest.mark.parametrize(("count", "each"), [(100, 5), (100, 500), (20, 5)])
def test_a_file_without_many_of_its_images_is_taken(tmp_path, count, each):
    """However many annotations there are beside those of the missing images."""
    path = coco_file(tmp_path, [])
    content = json.loads(path.read_text())
    content["images"] = [{"id": i, "file_name": f"{i}.png"} for i in range(count)]
    content["annotations"] = [coco_box(i, 3, [1, 1, 9, 9]) for i in range(6, count + 6) for _ in range(each)]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"there is no image {count}, named by {each} of the annotations\), 6 of"):
        read_coco_json(path, "a detection JSON", labelled=True)
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] != count]
    path.write_text(json.dumps(content))
    assert len(read_coco_json(path, "a detection JSON", labelled=True).left_out) == 5


@pytest.mark.parametrize("change", [{"width": 0}, {"file_name": None}, {"height": "tall"}])
@pytest.mark.parametrize("number", [0, 7, 98])
def test_boxes_of_a_bad_image_go_to_a_later_one_of_its_id(tmp_path, change, number):
    images = [{"id": min(i, 98), "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(100)]
    images[number] |= change
    images[99]["id"] = number
    with pytest.raises(UserError, match=f"the id {number} comes twice in images"):
        read(tmp_path, [coco_box(number, 3, [1, 1, 9, 9])], images=images)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"images": [{"id": 7, "file_name": "a.png"}, {"id": "7", "file_name": "b.png"}]},
            "the id 7 comes twice in images",
        ),
        ({"categories": [{"id": 3, "name": "cat"}, {"id": "3", "name": "dog"}]}, "the id 3 comes twice in categories"),
        ({"categories": [{"id": 3, "name": 7}]}, r"categories\[0\]"),
        ({"categories": [{"id": 3, "name": " "}]}, r"categories\[0\]"),
        ({"categories": [{"id": 3.5, "name": "cat"}]}, r"categories\[0\]"),
        ({"categories": [{"id": 3, "name": "cat", "frequency": "x"}]}, r"categories\[0\]"),
        ({"annotations": {}}, "has no list 'annotations'"),
        ({"images": None}, "has no list 'images'"),
    ],
)
def test_an_ambiguous_file_is_taken(tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        read(tmp_path, [], **change)


@pytest.mark.parametrize("absent", ["missing", None])
def test_a_file_without_annotations_is_one_without_objects(tmp_path, absent):
    path = coco_file(tmp_path, [])
    content = json.loads(path.read_text()) | {"annotations": absent}
    if absent == "missing":
        del content["annotations"]
    path.write_text(json.dumps(content))
    file = read_coco_json(path, "a detection JSON", labelled=True)
    assert not file.annotated
    assert file.objects == [[], []]
    assert read(tmp_path, []).annotated


def lvis(tmp_path, images, frequencies):
    categories = [{"id": i, "name": f"thing {i}", "frequency": f} for i, f in enumerate(frequencies, 3) if f]
    categories += [{"id": 90 + i, "name": f"other {i}"} for i in range(frequencies.count(None))]
    return read(tmp_path, [], images=images, categories=categories)


def test_one_image_without_lists_changes_how_a_file_is_scored(tmp_path):
    lists = {"neg_category_ids": ["3"], "not_exhaustive_category_ids": []}
    images = [{"id": i, "file_name": f"{i}.png", **lists} for i in range(5)]
    del images[2]["neg_category_ids"]
    file = lvis(tmp_path, images, ["r", "f"])
    assert file.federated
    assert file.images[0].entry["neg_category_ids"] == [3]
    assert [place for place, _ in file.left_out] == ["images[2]"]
    assert not lvis(tmp_path, images, [None, None]).federated
    with pytest.raises(UserError, match="LVIS's AP needs the frequency of every category; without it: other 0"):
        lvis(tmp_path, images, ["r", None])


def test_what_a_file_is_depends_on_its_first_record():
    assert has_captions({"annotations": [None, {"tokens_positive": []}]})
    assert has_captions({"images": [3, {"caption": "a cat"}]})
    for other in ({"annotations": [{"bbox": []}], "images": [{"id": 1}]}, {"annotations": 3}, {}, [], None):
        assert not has_captions(other)


@pytest.mark.parametrize("odd", [0, 7, 19])
@pytest.mark.parametrize("count", [20, 300])
def test_what_a_file_is_depends_on_one_record(odd, count):
    def records(is_mdetr):
        boxes, images = [{"bbox": []} for _ in range(count)], [{"id": i} for i in range(count)]
        for each in boxes if is_mdetr else ():
            each["tokens_positive"] = [[0, 3]]
        for each in images if is_mdetr else ():
            each["caption"] = "a cat"
        return {"annotations": boxes, "images": images}

    for what, key in (("annotations", "tokens_positive"), ("images", "caption")):
        coco, mdetr = records(False), records(True)
        coco[what][odd][key] = None
        del mdetr[what][odd][key]
        assert (has_captions(coco), has_captions(mdetr)) == (False, True)


def test_a_box_is_outside_an_image_of_unknown_size(tmp_path):
    images = [{"id": 7, "file_name": "a.png", "width": None, "height": 30}]
    file = read(tmp_path, [coco_box(7, 3, [500, 500, 9, 9])], images=images)
    assert [thing.edges for thing in file.objects[0]] == [(500, 500, 509, 509)]


def test_ids_that_are_texts_are_lost_where_boxes_are_not_labelled(tmp_path):
    path = coco_file(tmp_path, [])
    path.write_text(json.dumps({"images": [{"id": "x", "file_name": "a.png"}], "annotations": []}))
    assert read_coco_json(path, "a file").images[0].identifier == "x"
    with pytest.raises(UserError, match=r"not a file, see categories\[0\]"):
        read_coco_json(path, "a file", labelled=True)


def test_sizes_and_names_of_images():
    assert image_size({"height": "3", "width": 4}) == (3, 4)
    assert image_size({"height": 3}) is None
    assert file_name({"file_name": "a/b.jpg", "coco_url": "http://x/y/z.jpg"}) == "a/b.jpg"
    assert file_name({"coco_url": "http://images.cocodataset.org/val2017/9.png"}) == "val2017/9.png"
