"""A folder of labels whose form is found."""

import pickle

import pytest
from label_folders import BOXES, FORMS, NAMES

from fiber_cli.data.identity import own_facts
from fiber_cli.data.sources import open_source
from fiber_cli.data.sources.folder import LabelFolderSettings, LabelFolderSource


def everything(source):
    of_samples = []
    for i in range(len(source)):
        boxes, labels, size = source.regions(i)
        of_samples.append((boxes.tolist(), labels.tolist(), size, source.image(i).tobytes()))
    return list(source.names), of_samples, source.truth(), source.boxes_digest()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", BOXES)
def test_every_form_trains_and_is_scored_as_the_same_data(tmp_path, form, split, capsys):
    expected = LabelFolderSource(split, FORMS["coco"](tmp_path / "coco"))
    source = LabelFolderSource(split, FORMS[form](tmp_path / form))
    assert everything(source) == everything(expected)
    assert everything(pickle.loads(pickle.dumps(source))) == everything(expected)
    assert source.names == sorted(NAMES)
    assert source.trained_boxes == sum(map(len, BOXES[split].values()))
    assert f"{form}-{split}: labels in" in capsys.readouterr().err


def test_the_order_of_names_in_the_files_does_not_count(tmp_path):
    """COCO's ids, YOLO's numbers and VOC's alphabet order them otherwise, and prompts would be others."""
    FORMS["coco"](tmp_path / "one")
    FORMS["coco"](tmp_path / "other")
    other = tmp_path / "other" / "instances_train.json"
    swapped = other.read_text().replace(NAMES[0], "?").replace(NAMES[1], NAMES[0]).replace("?", NAMES[1])
    for one, another in ((1, 2),):
        swapped = swapped.replace(f'"category_id": {one}', '"category_id": 0')
        swapped = swapped.replace(f'"category_id": {another}', f'"category_id": {one}')
        swapped = swapped.replace('"category_id": 0', f'"category_id": {another}')
    other.write_text(swapped)
    assert everything(LabelFolderSource("train", tmp_path / "one")) == everything(
        LabelFolderSource("train", tmp_path / "other")
    )


def test_changed_labels_are_told_from_those_of_before(tmp_path):
    folder = FORMS["yolo"](tmp_path)
    settings = LabelFolderSettings(kind="folder", split="train", folder=str(folder))
    before = own_facts("train", open_source(settings))
    label = folder / "labels" / "train" / "b.txt"
    label.write_text(label.read_text().replace("1 ", "0 ", 1))
    after = own_facts("train", open_source(settings))
    assert {name for name in before if before[name] != after[name]} == {"train: the digest of the boxes"}
