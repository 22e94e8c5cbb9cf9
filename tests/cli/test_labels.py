"""`fiber data check` of one's own labels."""

import json

import pytest
from commands import command
from label_folders import FORMS, NAMES, write_coco, write_flat_voc, write_yolo
from PIL import Image


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_of_any_form_is_counted_and_drawn(tmp_path, form, capsys):
    folder = FORMS[form](tmp_path / form)
    sheet = tmp_path / "sheet.png"
    code, out, _ = command(capsys, "data", "check", folder, "--sheet", sheet, "--shown", 2)
    assert code == 0
    assert "3 pictures, 3 boxes of 2 classes" in out
    assert f"    {NAMES[1]}: 2" in out
    assert "in two splits: 0 pictures" in out
    with Image.open(sheet) as drawn:
        colours = {colour for _, colour in drawn.convert("RGB").getcolors(1 << 24)}
    assert len(colours) > 4


def test_a_folder_that_is_not_there_or_called_as_a_data_set_is_not_told(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("nowhere", tmp_path / "nowhere", "cocoo"):
        code, _, err = command(capsys, "data", "check", name)
        assert code == 2
        assert f"{name}: there is no such folder or file, and no data set or recipe of that name" in " ".join(
            err.split()
        )
    for name in ("coco", "detection"):
        write_coco(tmp_path / name)
        code, _, err = command(capsys, "data", "check", name)
        assert code == 2
        assert f"a folder of your own of that name is ./{name}" in err
        assert command(capsys, "data", "check", f"./{name}")[0] == 0


def test_faults_end_with_exit_code_1_and_stand_in_json(tmp_path, capsys):
    folder = write_coco(tmp_path)
    (folder / "train" / "a.png").unlink()
    code, out, err = command(capsys, "data", "check", folder)
    assert code == 1
    assert "to mend: 1 pictures are missing: a.png" in out
    assert "a fault was found" in err
    code, out, _ = command(capsys, "data", "check", folder, "--json")
    assert code == 1
    assert json.loads(out)["faults"] == ["train: 1 pictures are missing: a.png"]


def test_entries_of_recipes_are_checked_as_they_would_be_read(tmp_path, capsys):
    folder = write_flat_voc(tmp_path)
    entry = f"{{kind: voc, folder: {folder / 'train'}, boxes: edges_from_1}}"
    code, out, _ = command(capsys, "data", "check", "--source", entry)
    assert code == 0
    assert "all: Pascal VOC's (XML)" in out
    code, _, err = command(capsys, "data", "check", "--source", "{kind: scenes}")
    assert code == 1
    assert "scenes has no labels to check" in err


def test_a_sheet_replaces_no_picture(tmp_path, capsys):
    folder = write_yolo(tmp_path)
    picture = folder / "images" / "train" / "a.png"
    code, _, err = command(capsys, "data", "check", folder, "--sheet", picture, "--force")
    assert code == 1
    assert "would be overwritten" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((".", "coco"), "in commands of their own"),
        ((".", "--root", "."), "not of own labels"),
        (("coco", "--root", ".", "--sheet", "a.png"), "of own labels"),
        ((), "give --root"),
        ((".", "--images", "."), "is of a JSON file"),
    ],
)
def test_options_of_the_other_kind_of_data_are_refused(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(write_yolo(tmp_path))
    code, _, err = command(capsys, "data", "check", *arguments)
    assert code != 0
    assert message in " ".join(err.replace("│", " ").split())
