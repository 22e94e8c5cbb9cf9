"""Files of Pascal VOC's annotations."""

import pytest
from label_folders import voc_xml

from fiber_cli.data.source import BadSample
from fiber_cli.data.voc_xml import read_voc_object, read_voc_xml

BOX = "<bndbox><xmin>1</xmin><ymin>2.0</ymin><xmax> 3 </xmax><ymax>4</ymax></bndbox>"


@pytest.fixture
def read(tmp_path):
    def of(text):
        (tmp_path / "a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_voc_xml(tmp_path / "a.xml")

    return of


def test_a_file_tells_its_picture_and_objects(read):
    picture = read(voc_xml("a", [(0, 3, 4, 20, 10)], difficult=1))
    assert (picture.filename, picture.size) == ("a.png", (40, 60))
    assert read_voc_object(picture.objects[0]) == ("red cell", (4, 5, 23, 14), True)


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
def test_a_size_that_the_tool_did_not_know_is_none(read, size):
    assert read(f"<annotation>{size}</annotation>").size is None


def test_the_parts_of_a_person_are_no_objects(read):
    part = f"<part><name>head</name>{BOX}</part>"
    picture = read(f"<annotation><object><name>person</name>{BOX}{part}</object></annotation>")
    assert [read_voc_object(each).name for each in picture.objects] == ["person"]
    assert read_voc_object(picture.objects[0]).box == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "no XML"),
        ("", "no XML"),
        ("<html/>", "its root is <html>"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation><filename>&x;</filename></annotation>', "document type"),
        ('<!DOCTYPE a SYSTEM "http://localhost/x.dtd"><annotation/>', "document type"),
        ('<?xml version="1.0"?><!DOCTYPE a><annotation/>'.encode("utf-16"), "document type"),
        ("<annotation>&undefined;</annotation>", "no XML"),
    ],
)
def test_another_file_is_refused_and_no_entity_is_expanded(read, text, message):
    with pytest.raises(BadSample, match=message):
        read(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOX, "<name>"),
        ("<name>cat</name>", "no <bndbox>"),
        ("<name>cat</name><bndbox><xmin>1</xmin></bndbox>", "<ymin>"),
        (f"<name>cat</name>{BOX.replace('2.0', 'two')}", "two"),
    ],
)
def test_an_object_without_a_name_or_a_box_is_told(read, content, message):
    picture = read(f"<annotation><object>{content}</object></annotation>")
    with pytest.raises(ValueError, match=message):
        read_voc_object(picture.objects[0])
