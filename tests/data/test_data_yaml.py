"""Ultralytics' data.yaml."""

import pytest
from label_folders import write_picture

from fiber_cli.data.data_yaml import read_data_yaml
from fiber_cli.errors import UserError


@pytest.fixture
def data(tmp_path):
    for name in ("images/train/a.png", "images/train/more/b.png", "images/other/c.png"):
        write_picture(tmp_path / name, 7)

    def read(text):
        (tmp_path / "data.yaml").write_text(text)
        return read_data_yaml(tmp_path / "data.yaml")

    return read


def names_of(pictures, folder):
    return [path.relative_to(folder).as_posix() for path in pictures]


@pytest.mark.parametrize("names", ["[cat, dog]", "{0: cat, 1: dog}", "{1: dog, 0: cat}", "\n  - cat\n  - dog"])
def test_names_are_a_list_or_a_mapping(data, names):
    assert data(f"train: images/train\nnc: 2\nnames: {names}\n").names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("images/train", ["images/train/a.png", "images/train/more/b.png"]),
        ("[images/train/more, images/other]", ["images/train/more/b.png", "images/other/c.png"]),
        ("../images/other", ["images/other/c.png"]),
        ("list.txt", ["images/other/c.png", "images/train/a.png", "images/none.png"]),
        ("[list.txt, images/other]", ["images/other/c.png", "images/train/a.png", "images/none.png"]),
    ],
)
def test_a_split_is_a_folder_a_list_or_a_file_of_a_list(data, tmp_path, place, found):
    (tmp_path / "list.txt").write_text("./images/other/c.png\nimages/train/a.png\n\nimages/none.png\n")
    assert names_of(data(f"train: {place}\nnames: [cat]\n").pictures("train"), tmp_path) == found


def test_path_is_where_the_splits_are(data, tmp_path):
    read = data("path: images\ntrain: train/more\nnames: [cat]\n")
    assert names_of(read.pictures("train"), tmp_path) == ["images/train/more/b.png"]


def test_a_path_of_another_machine_is_told_and_the_files_own_folder_taken(data, tmp_path, capsys):
    read = data("path: /content/drive/cats\ntrain: images/other\nnames: [cat]\n")
    assert names_of(read.pictures("train"), tmp_path) == ["images/other/c.png"]
    assert "there is no folder /content/drive/cats" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_split_goes_by_the_names_that_tools_give_it(data, name):
    assert len(data(f"train: images/train\n{name}: images/other\nnames: [cat]\n").pictures("val")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\n", "no `names`"),
        ("train: images/train\nnames: []\n", "`names` is empty"),
        ("train: images/train\nnames: {0: cat, 2: dog}\n", "must be 0 to 1"),
        ("train: images/train\nnc: 3\nnames: [cat]\n", "nc is 3"),
        ("train: images/train\nnames: [a cat, a_cat]\n", "comes twice"),
        ("names: [cat]\n", "no train, val or test"),
        ("- 1\n", "no mapping"),
        ("train: [\n", "not valid YAML"),
        ("path: nowhere\ntrain: gone\nnames: [cat]\n", "no folder"),
    ],
)
def test_a_file_of_another_form_is_refused(data, text, message):
    with pytest.raises(UserError, match=message):
        data(text)


def test_a_split_that_is_not_there_is_told(data):
    read = data("train: images/gone\nnames: [cat]\n")
    with pytest.raises(UserError, match=r"train: there is no .*images/gone"):
        read.pictures("train")
    with pytest.raises(UserError, match="no split 'test'; it has train"):
        read.pictures("test")
