"""Grounding data in MDETR's JSON form."""

import json

import numpy as np
import pytest
from region_files import mdetr_file, write_image

from fiber_cli.data.box_edges import inclusive
from fiber_cli.data.sources.mdetr import MdetrSource
from fiber_cli.errors import UserError


@pytest.fixture
def cases(shared):
    return json.loads((shared / "golden" / "fine_data_cases.json").read_text())


def test_annotations_are_converted_as_published(cases, tmp_path):
    case = cases["annotation_conversion_xywh"]
    width, height = case["image_wh"]
    image = {"id": 1, "file_name": "a.png", "width": width, "height": height, "caption": "apple dog"}
    write_image(tmp_path / "a.png", width, height)
    annotations = [{"image_id": 1, **annotation} for annotation in case["annotations"]]
    (tmp_path / "x.json").write_text(json.dumps({"images": [image], "annotations": annotations}))
    regions = MdetrSource(tmp_path / "x.json", tmp_path).regions(0)
    boxes, kept = inclusive(regions.boxes, regions.size)
    np.testing.assert_allclose(boxes[kept], case["boxes_xyxy"])
    spans = [spans for spans, keep in zip(regions.spans, kept, strict=True) if keep]
    assert [[list(span) for span in row] for row in spans] == case["tokens_positive"]


def test_captions_boxes_and_spans_are_read(tmp_path):
    path = mdetr_file(tmp_path, [[[0, 5]], [[0, 5], [14, 19]]], data_source="gqa")
    for images in (tmp_path / "images", {"gqa": tmp_path / "images", "coco": tmp_path / "other"}):
        source = MdetrSource(path, images)
        regions = source.regions(0)
        assert regions.caption == "a cat left of a dog"
        assert regions.boxes.tolist() == [[1, 2, 11, 7]] * 2
        assert source.key(0) == "12"
        assert regions.spans == [[(0, 5)], [(0, 5), (14, 19)]]
        assert source.image(0).size == (40, 30)
    assert [(phrase.span, len(phrase.boxes)) for phrase in source.phrases(0)[1]] == [((0, 5), 2), ((14, 19), 1)]
    with pytest.raises(UserError, match=r"annotations\[0\].*inside the caption"):
        MdetrSource(mdetr_file(tmp_path, [[[0, 50]]]), tmp_path)


def test_sizes_as_text_are_told_as_wrong(tmp_path):
    """As in MDETR's final_flickr_separateGT_val.json."""
    source = MdetrSource(mdetr_file(tmp_path, [[[0, 5]]], height="30", width="40"), tmp_path / "images")
    assert source.regions(0).size == (30, 40)
    assert source.regions(0).boxes.tolist() == [[1, 2, 11, 7]]


@pytest.mark.parametrize(
    ("name", "refers"),
    [
        ("refcoco", True),
        ("refcoco+", True),
        ("refcocog", True),
        ("RefCOCO", True),
        ("flickr", False),
        ("mixed", None),
        (None, None),
        (3, None),
    ],
)
def test_expressions_are_taken_for_phrases(tmp_path, name, refers):
    path = mdetr_file(tmp_path, [[[0, 5]]], dataset_name=name)
    assert MdetrSource(path, tmp_path / "images").refers is refers
    # What a recipe says goes before.
    assert MdetrSource(path, tmp_path / "images", refers=not refers).refers is not refers


def of_names(tmp_path, names):
    """The source of a file with an image for each `dataset_name`; "missing" for none."""
    path = mdetr_file(tmp_path, [])
    content = json.loads(path.read_text())
    [image] = content["images"]
    content["images"] = [image | {"id": i, "dataset_name": name} for i, name in enumerate(names)]
    for entry in content["images"]:
        if entry["dataset_name"] == "missing":
            del entry["dataset_name"]
    path.write_text(json.dumps(content))
    return MdetrSource(path, tmp_path / "images")


def test_a_file_of_both_kinds_is_taken_for_one(tmp_path):
    source = of_names(tmp_path, ["refcoco", "flickr"])
    assert source.refers is None
    assert source.doubts == [
        "no dataset_name is that of most images of mixed: all are scored as the checkpoint's task has it"
    ]


@pytest.mark.parametrize("other", ["missing", None, "flickr", "mine"])
@pytest.mark.parametrize("place", [0, 7, 19])
def test_one_image_changes_the_protocol(tmp_path, other, place):
    names = ["refcoco", "refcoco+"] * 10
    assert (of_names(tmp_path, names).refers, of_names(tmp_path, names).doubts) == (True, [])
    names[place] = other
    source = of_names(tmp_path, names)
    assert source.refers is True
    assert source.doubts == [
        "dataset_name of 1 of 20 images of mixed says otherwise: all are scored as referring expressions"
    ]


def test_most_images_are_overruled(tmp_path):
    source = of_names(tmp_path, ["flickr"] * 8 + ["refcoco", "missing", "refcoco"])
    assert source.refers is False
    assert source.doubts[0].startswith("dataset_name of 3 of 11 images")
    source = of_names(tmp_path, ["missing"] * 8 + ["refcoco"])
    assert source.refers is None
    assert source.doubts[0].startswith("dataset_name of 1 of 9 images")


def test_one_bad_record_refuses_the_file(tmp_path, capsys):
    path = mdetr_file(tmp_path, [[[0, 5]], [[0, 50]], [[14, 19]], [["0", "5"]]])
    content = json.loads(path.read_text())
    content["images"] += [content["images"][0] | {"id": number} for number in (13, 14)]
    content["images"].append({"id": 15, "file_name": "a.png", "caption": None})
    path.write_text(json.dumps(content))
    source = MdetrSource(path, tmp_path / "images")
    assert source.regions(0).spans == [[(0, 5)], [(14, 19)], [(0, 5)]]
    assert [place for place, _ in source.left_out] == ["images[3]", "annotations[1]"]
    assert "1 of 4 images is left out: images[3] (TypeError: caption must be text" in capsys.readouterr().err
    content["images"].append(content["images"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="the id 12 comes twice in images"):
        MdetrSource(path, tmp_path / "images")
