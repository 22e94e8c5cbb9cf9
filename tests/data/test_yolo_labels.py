"""Labels in Ultralytics' form."""

from pathlib import Path

import pytest
from label_folders import SIZE, write_picture, write_yolo
from PIL import Image

from fiber_cli.data.object_columns import Use
from fiber_cli.data.yolo_labels import label_file, read_yolo
from fiber_cli.errors import UserError

GOOD = "0 0.5 0.5 0.5 0.5\n"


@pytest.fixture
def read(tmp_path):
    """Reads the objects of one picture from the text of its label file."""

    def of(text, *, head="", lenient=False):
        write_picture(tmp_path / "images" / "a.png", 50)
        label = tmp_path / "labels" / "a.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text(text)
        (tmp_path / "data.yaml").write_text(f"{head}train: images\nnames: [cat, dog]\n")
        return read_yolo(tmp_path / "data.yaml", "train", lenient=lenient)

    return of


@pytest.mark.parametrize(
    ("picture", "label"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("/images/d/images/a.b.jpg", "/images/d/labels/a.b.txt"),
        ("/d/pictures/a.png", "/d/pictures/a.txt"),
    ],
)
def test_labels_lie_where_ultralytics_looks_for_them(picture, label):
    assert label_file(Path(picture)) == Path(label)


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("1 0.5 0.5 0.5 0.25", (15, 15, 30, 10)),
        ("1 0.1 0.2 0.5 0.2 0.5 0.7", (6, 8, 24, 20)),
        ("1 0.1 0.2 0.5 0.2 0.5 0.7 0.1 0.7", (6, 8, 24, 20)),
        ("1.0 0.216667 0.225 0.333333 0.25", (3, 4, 20, 10)),
    ],
)
def test_a_line_is_a_box_or_an_outline(read, line, box):
    labelled = read(line)
    (found,) = labelled.files.objects[0]
    assert found.box == box
    assert found.category == 1


def test_points_behind_a_box_are_no_outline_where_the_data_have_keypoints(read):
    (found,) = read("0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.2 0.2 1", head="kpt_shape: [2, 3]\n").files.objects[0]
    assert found.box == (15, 10, 30, 20)


def test_boxes_are_of_the_picture_as_it_stands_upright(read, tmp_path):
    turned = Image.new("RGB", SIZE)
    exif = turned.getexif()
    exif[0x0112] = 6
    read(GOOD)
    turned.save(tmp_path / "images" / "a.png", exif=exif)
    labelled = read_yolo(tmp_path / "data.yaml", "train")
    assert labelled.files.images[0].size == (SIZE[0], SIZE[1])
    assert labelled.files.objects[0][0].box == (10, 15, 20, 30)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.5 0.5", "no class 2"),
        ("-1 0.5 0.5 0.5 0.5", "no class -1"),
        ("0 30 20 10 10", "30 is no share"),
        ("0 0.5 0.5 0.5", "3 numbers"),
        ("0 0.5 0.5 0.5 0.5 0.5", "5 numbers"),
        ("cat 0.5 0.5 0.5 0.5", "no whole number"),
        ("0 0.5 0.5 -0.5 0.5", "before its beginning"),
        ("0 0.5 nan 0.5 0.5", "not finite"),
    ],
)
def test_a_line_of_another_form_is_told_with_its_place(read, line, message):
    with pytest.raises(UserError, match=rf"a\.txt line 2 .*{message}"):
        read(GOOD + line)
    assert message.split()[-1] in read(GOOD + line, lenient=True).files.left_out[0][1]


def test_boxes_past_the_picture_are_kept_and_those_outside_counted(read):
    files = read("0 1.0 0.5 0.5 0.5\n0 1.5 0.5 0.2 0.2\n0 0.5 0.5 0 0.1\n0 0.5 0.5 0.01 0.5").files
    assert [each.use for each in files.objects[0]] == [Use.TRAINED, Use.SCORED]
    assert files.without_area == 2


def test_a_line_that_comes_twice_counts_once(read):
    labelled = read(GOOD + "1 0.5 0.5 0.5 0.5\n" + GOOD)
    assert len(labelled.files.objects[0]) == 2
    assert "1 lines come twice" in labelled.remarks[0]


def test_pictures_without_labels_have_no_objects_and_labels_without_pictures_are_told(tmp_path):
    folder = write_yolo(tmp_path)
    (folder / "labels" / "train" / "b.txt").unlink()
    (folder / "images" / "train" / "a.png").unlink()
    labelled = read_yolo(folder / "data.yaml", "train")
    assert [len(each) for each in labelled.files.objects] == [0, 0]
    assert labelled.absent == (str(folder / "labels" / "train" / "a.txt"),)
    assert any("1 of 2 pictures have no file of labels" in remark for remark in labelled.remarks)


def test_a_folder_without_any_labels_is_refused(tmp_path):
    folder = write_yolo(tmp_path)
    for label in (folder / "labels" / "train").iterdir():
        label.unlink()
    with pytest.raises(UserError, match=r"none of 3 pictures has labels, such as .*labels/train/a\.txt"):
        read_yolo(folder / "data.yaml", "train")
