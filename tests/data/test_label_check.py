"""What is wrong with labels."""

import json
import shutil

import pytest
from label_folders import FORMS, voc_xml, write_coco, write_picture, write_voc, write_yolo, yolo_line
from PIL import Image

from fiber_cli.data.label_check import check_labels
from fiber_cli.data.label_splits import named_apart, splits_at


def check(folder, images=None):
    return check_labels(named_apart(list(splits_at(folder, images))))


@pytest.mark.parametrize("form", FORMS)
def test_good_labels_are_counted_alike_in_every_form(tmp_path, form):
    report = check(FORMS[form](tmp_path))
    train, val = report.splits
    assert (train.pictures, train.boxes, train.empty) == (3, 3, 1)
    assert dict(train.classes) == {"red cell": 1, "platelet": 2}
    assert dict(val.classes) == {"red cell": 2, "platelet": 1}
    assert report.faults() == []
    assert report.twice == []


def spoiled_coco(folder):
    write_coco(folder)
    file = folder / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [50, 30, 30, 30]
    content["annotations"][1]["bbox"] = [70, 0, 9, 9]
    content["annotations"][2]["category_id"] = 9
    file.write_text(json.dumps(content))
    (folder / "train" / "a.png").unlink()
    shutil.copy(folder / "train" / "b.png", folder / "val" / "d.png")


def spoiled_yolo(folder):
    write_yolo(folder)
    labels = [yolo_line(0, 50, 30, 30, 30), yolo_line(1, 70, 0, 9, 9), "9 0.5 0.5 0.1 0.1"]
    (folder / "labels" / "train" / "c.txt").write_text("\n".join(labels))
    (folder / "images" / "train" / "a.png").unlink()
    shutil.copy(folder / "images" / "train" / "b.png", folder / "images" / "val" / "d.png")


def spoiled_voc(folder):
    write_voc(folder)
    (folder / "Annotations" / "c.xml").write_text(
        voc_xml("c", [(0, 50, 30, 30, 30), (1, 70, 0, 9, 9)]).replace("</annotation>", "<object/></annotation>")
    )
    (folder / "JPEGImages" / "a.png").unlink()
    shutil.copy(folder / "JPEGImages" / "b.png", folder / "JPEGImages" / "d.png")


@pytest.mark.parametrize("spoil", [spoiled_coco, spoiled_yolo, spoiled_voc])
def test_what_is_wrong_is_counted_alike_in_every_form(tmp_path, spoil):
    spoil(tmp_path)
    report = check(tmp_path)
    train = report.splits[0]
    assert (train.past, train.without_area) == (1, 1)
    assert [len(found) for found in (train.missing, train.left_out, train.unreadable)] == [1, 1, 0]
    (twice,) = report.twice
    assert (twice.across, twice.same_bytes) == (True, True)
    assert {"b.png", "d.png"} == {each.rsplit("/", 1)[1] for each in (twice.first, twice.second)}
    told = "\n".join(report.faults())
    for words in ("1 pictures are missing", "1 records of the annotations", "1 files are in two splits"):
        assert words in told


def test_pictures_that_cannot_be_read_or_have_another_size_are_named(tmp_path):
    folder = write_coco(tmp_path)
    (folder / "train" / "a.png").write_bytes(b"no picture")
    write_picture(folder / "train" / "b.png", 40, (30, 20))
    train = check(folder).splits[0]
    assert train.unreadable[0].startswith("a.png (")
    assert train.other_size == ["b.png (60 x 40 by the annotations, 30 x 20)"]


def test_copies_of_another_size_look_the_same_and_are_for_a_person_to_judge(tmp_path):
    folder = write_coco(tmp_path)
    content = json.loads((folder / "instances_val.json").read_text())
    content["images"][0] |= {"width": 120, "height": 80}
    (folder / "instances_val.json").write_text(json.dumps(content))
    drawn = Image.effect_noise((8, 8), 90).resize((60, 40), Image.Resampling.BICUBIC).convert("RGB")
    drawn.save(folder / "train" / "a.png")
    drawn.resize((120, 80), Image.Resampling.BICUBIC).save(folder / "val" / "d.png")
    report = check(folder)
    assert [(each.across, each.same_bytes) for each in report.twice] == [(True, False)]
    assert report.faults() == []


def test_splits_with_other_classes_are_told(tmp_path):
    folder = write_coco(tmp_path)
    file = folder / "instances_val.json"
    file.write_text(file.read_text().replace('"name": "platelet"', '"name": "thrombocyte"'))
    assert check(folder).classes_differ == [
        "val lacks classes of train: platelet",
        "val has classes that train lacks: thrombocyte",
    ]


def test_a_json_file_and_a_data_yaml_are_checked_alone(tmp_path):
    coco = write_coco(tmp_path / "coco")
    assert [split.split for split in check(coco / "instances_val.json").splits] == ["instances_val"]
    assert check(coco / "instances_val.json", coco / "val").splits[0].missing == []
    yolo = write_yolo(tmp_path / "yolo")
    assert [split.split for split in check(yolo / "data.yaml").splits] == ["train", "val"]
