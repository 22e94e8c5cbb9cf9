"""Labels in Pascal VOC's form."""

import pytest
from label_folders import BOXES, voc_xml, write_picture, write_voc

from fiber_cli.data.object_columns import Use
from fiber_cli.data.voc_labels import VocOptions, read_voc
from fiber_cli.errors import UserError


def test_difficult_objects_are_neither_trained_on_nor_scored_unless_they_are_used(tmp_path):
    folder = write_voc(tmp_path)
    (folder / "Annotations" / "a.xml").write_text(voc_xml("a", BOXES["train"]["a"], difficult=1))
    ignored = read_voc(folder, "train")
    assert [each.use for each in ignored.files.objects[0]] == [Use.CROWD] * 2
    assert "2 difficult objects" in ignored.remarks[0]
    used = read_voc(folder, "train", options=VocOptions(difficult="used"))
    assert [each.use for each in used.files.objects[0]] == [Use.TRAINED] * 2


def test_names_are_those_of_all_splits(tmp_path):
    folder = write_voc(tmp_path)
    (folder / "Annotations" / "d.xml").write_text(voc_xml("d", []))
    assert [category.name for category in read_voc(folder, "val").categories] == ["platelet", "red cell"]


def test_lists_of_one_class_name_their_pictures_in_the_first_column(tmp_path):
    folder = write_voc(tmp_path)
    (folder / "ImageSets" / "Main" / "cell_train.txt").write_text("a  1\nb -1\nc  0\n")
    assert len(read_voc(folder, "cell_train").files.images) == 3


def test_the_picture_of_the_files_own_name_goes_before_the_one_it_says(tmp_path):
    folder = write_voc(tmp_path)
    xml = folder / "Annotations" / "a.xml"
    xml.write_text(xml.read_text().replace("a.png", "b.png"))
    assert read_voc(folder, "train").paths[0] == "JPEGImages/a.png"
    (folder / "JPEGImages" / "a.png").rename(folder / "JPEGImages" / "renamed.png")
    xml.write_text(xml.read_text().replace("b.png", "C:\\pictures\\renamed.png"))
    assert read_voc(folder, "train").paths[0] == "JPEGImages/renamed.png"


def test_pictures_may_lie_elsewhere(tmp_path):
    folder = write_voc(tmp_path / "voc")
    (folder / "JPEGImages").rename(tmp_path / "pictures")
    labelled = read_voc(folder, "train", tmp_path / "pictures")
    assert labelled.paths[0] == str(tmp_path / "pictures" / "a.png")
    with pytest.raises(UserError, match="no such folder of images"):
        read_voc(folder, "train", tmp_path / "none")


def test_the_size_is_that_of_the_picture_where_the_file_does_not_tell(tmp_path):
    folder = write_voc(tmp_path)
    (folder / "Annotations" / "a.xml").write_text(voc_xml("a", BOXES["train"]["a"], size=(0, 0)))
    assert read_voc(folder, "train").files.images[0].size == (40, 60)


def test_what_speaks_against_boxes_of_pixels_is_told(tmp_path):
    folder = write_voc(tmp_path)
    xml = folder / "Annotations" / "b.xml"
    xml.write_text(voc_xml("b", [(0, -1, 4, 20, 10)]))
    assert any("begin at 0" in remark for remark in read_voc(folder, "train").remarks)
    xml.write_text(voc_xml("b", [(0, 41, 4, 20, 10)]))
    assert any("one pixel past" in remark for remark in read_voc(folder, "train").remarks)


def test_files_without_a_picture_are_left_out_and_named(tmp_path):
    folder = write_voc(tmp_path)
    (folder / "JPEGImages" / "a.png").unlink()
    labelled = read_voc(folder, "train", lenient=True)
    assert labelled.absent == (str(folder / "Annotations" / "a.xml"),)
    assert len(labelled.files.images) == 2


def test_many_bad_files_refuse_the_folder(tmp_path):
    folder = write_voc(tmp_path)
    for name in ("a", "b"):
        (folder / "Annotations" / f"{name}.xml").write_text("<annotation>")
    with pytest.raises(UserError, match=r"not Pascal VOC's annotations, see .*a\.xml \(no XML"):
        read_voc(folder, "train")


def test_pictures_without_a_file_are_told(tmp_path):
    folder = write_voc(tmp_path)
    write_picture(folder / "JPEGImages" / "more.png", 9)
    assert any("1 pictures have no XML file" in remark for remark in read_voc(folder, "train").remarks)


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("test", VocOptions(), "no list of the split 'test', such as ImageSets/Main/test.txt"),
        ("train", VocOptions(names=["platelet"]), "objects named 'red cell', which `names` lacks"),
    ],
)
def test_what_is_not_there_is_told(tmp_path, split, options, message):
    with pytest.raises(UserError, match=message):
        read_voc(write_voc(tmp_path), split, options=options)


def test_a_folder_without_xml_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no \.xml files"):
        read_voc(tmp_path, None)
