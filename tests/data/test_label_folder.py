"""Which form the labels of a folder have."""

import json

import pytest
from label_folders import FORMS, write_coco, write_voc, write_yolo

from fiber_cli.data.label_folder import find_labels, splits_of
from fiber_cli.errors import UserError

KINDS = {"coco": "coco", "yolo": "yolo", "roboflow_yolo": "yolo", "voc": "voc", "flat_voc": "voc"}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_is_found_and_the_splits_by_whatever_name(tmp_path, form):
    folder = FORMS[form](tmp_path)
    assert find_labels(folder, "val").form == KINDS[form]
    assert splits_of(folder) == ["train", "val"]
    assert len(find_labels(folder, "valid").read(False).paths) == 2


@pytest.mark.parametrize(
    ("json_file", "images"),
    [
        ("train/_annotations.coco.json", "train"),
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/train.json", "images/train"),
        ("train.json", "images"),
        ("train/labels.json", "train/data"),
        ("instances_train.json", "."),
    ],
)
def test_coco_is_found_where_tools_put_it(tmp_path, json_file, images):
    folder = write_coco(tmp_path / "made")
    place = tmp_path / "exported"
    (place / json_file).parent.mkdir(parents=True)
    (folder / "instances_train.json").rename(place / json_file)
    (place / images).mkdir(parents=True, exist_ok=True)
    for picture in (folder / "train").iterdir():
        picture.rename(place / images / picture.name)
    labelled = find_labels(place, "train").read(False)
    assert all((labelled.folder / path).is_file() for path in labelled.paths)


def test_names_of_files_with_their_folders_are_found(tmp_path):
    folder = write_coco(tmp_path)
    content = json.loads((folder / "instances_train.json").read_text())
    for image in content["images"]:
        image["file_name"] = f"somewhere/train/{image['file_name']}"
    (folder / "instances_train.json").write_text(json.dumps(content))
    labelled = find_labels(folder, "train").read(False)
    assert all((labelled.folder / path).is_file() for path in labelled.paths)


def test_voc_in_folders_of_the_splits_is_found(tmp_path):
    folder = write_voc(tmp_path)
    for place in ("Annotations", "JPEGImages"):
        (folder / place / "train").mkdir()
        for name in "abc":
            next((folder / place).glob(f"{name}.*")).rename(folder / place / "train" / f"{name}.{place[0]}")
    for file in (folder / "Annotations" / "train").iterdir():
        file.rename(file.with_suffix(".xml"))
    for file in (folder / "JPEGImages" / "train").iterdir():
        file.rename(file.with_suffix(".png"))
    (folder / "ImageSets" / "Main" / "train.txt").unlink()
    labelled = find_labels(folder, "train").read(False)
    assert len(labelled.paths) == 3
    assert [category.name for category in labelled.categories] == ["platelet", "red cell"]


def test_other_names_than_tools_give_are_named(tmp_path):
    folder = write_coco(tmp_path)
    (folder / "instances_train.json").rename(folder / "own.json")
    (folder / "train").rename(folder / "pictures")
    found = find_labels(folder, "train", json=folder / "own.json", images=folder / "pictures")
    assert (found.form, len(found.read(False).paths)) == ("coco", 3)
    with pytest.raises(UserError, match=r"own\.json: its images, such as a\.png, lie in none of"):
        find_labels(folder, "train", json=folder / "own.json").read(False)


def test_several_forms_are_told_and_one_may_be_named(tmp_path):
    folder = write_yolo(write_voc(tmp_path))
    with pytest.raises(UserError, match=r"several forms: yolo \(.*data\.yaml\), voc \(.*train\.txt\); name one"):
        find_labels(folder, "train")
    assert find_labels(folder, "train", "voc").form == "voc"


def test_where_nothing_is_found_it_is_said_what_was_looked_for(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(UserError, match="no labels of the split 'train'") as error:
        find_labels(tmp_path, "train")
    told = "\n".join(error.value.details)
    for words in ("instances_train.json", "data.yaml", "`names` and `train`", "ImageSets/Main/train.txt"):
        assert words in told
    assert "the folder has classes.txt, labels/" in told
    with pytest.raises(UserError, match="no such folder"):
        find_labels(tmp_path / "none", "train")


def test_a_split_that_the_labels_lack_is_told_beside_those_they_have(tmp_path):
    with pytest.raises(UserError) as error:
        find_labels(write_yolo(tmp_path), "test")
    assert "there are labels of train, val" in error.value.details
