"""Flickr30k Entities' own files."""

import json

import pytest
from region_files import write_image

from fiber_cli.data.sources.flickr_entities import FlickrEntitiesSource, entity_boxes, parse_entities
from fiber_cli.errors import UserError


@pytest.fixture
def cases(shared):
    return json.loads((shared / "golden" / "fine_data_cases.json").read_text())


def test_marked_sentences_and_xml_are_parsed(cases):
    case = cases["flickr_recall"]
    text, phrases = parse_entities(case["sentences"]["111"].splitlines()[0])
    assert text == "Two men hold a red bag near the sea ."
    assert [(name, types, text[a:b]) for name, types, (a, b) in phrases] == [
        ("1", ("people",), "Two men"),
        ("2", ("other", "clothing"), "a red bag"),
        ("3", ("scene",), "the sea"),
    ]
    size, boxes = entity_boxes(case["annotations_xml"]["111"])
    assert size == (150, 200)
    assert {name: len(own) for name, own in boxes.items()} == {"1": 2, "2": 1}
    assert boxes["1"][0].tolist() == [9, 9, 59, 79]
    both = entity_boxes(case["annotations_xml"]["222"])[1]
    assert both["7"].tolist() == both["8"].tolist()


def test_phrases_with_boxes_are_read(tmp_path):
    for folder in ("Annotations", "Sentences", "images"):
        (tmp_path / folder).mkdir()
    (tmp_path / "Annotations" / "1.xml").write_text(
        "<annotation><size><width>40</width><height>30</height></size><object><name>5</name><name>6</name><bndbox>"
        "<xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object></annotation>"
    )
    sentences = "[/EN#5/people A man] in [/EN#6/clothing a coat] .\n[/EN#0/notvisual Nothing] .\n"
    (tmp_path / "Sentences" / "1.txt").write_text(sentences)
    (tmp_path / "val.txt").write_text("1\n")
    write_image(tmp_path / "images" / "1.jpg")
    source = FlickrEntitiesSource(tmp_path, tmp_path / "images", "val")
    assert len(source) == 1
    regions = source.regions(0)
    assert regions.caption == "A man in a coat ."
    assert regions.boxes.tolist() == [[0, 0, 40, 30]]
    assert regions.spans == [[(0, 5), (9, 15)]]
    with pytest.raises(UserError, match=r"test.txt"):
        FlickrEntitiesSource(tmp_path, tmp_path / "images", "test")


XML = (
    "<annotation><size><width>{width}</width><height>30</height></size><object><name>5</name><bndbox>"
    "<xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object></annotation>"
)


@pytest.fixture
def entities(tmp_path):
    """Four pictures with a sentence each."""
    for folder in ("Annotations", "Sentences", "images"):
        (tmp_path / folder).mkdir()
    for number in range(4):
        (tmp_path / "Annotations" / f"{number}.xml").write_text(XML.format(width=40))
        (tmp_path / "Sentences" / f"{number}.txt").write_text("[/EN#5/people A man] .\n")
        write_image(tmp_path / "images" / f"{number}.jpg")
    (tmp_path / "val.txt").write_text("0\n1\n2\n3\n")
    return tmp_path


@pytest.mark.parametrize("xml", [None, "<annotation>", XML.format(width=0), XML.format(width="wide"), "<annotation/>"])
def test_one_bad_picture_refuses_all(entities, xml, capsys):
    path = entities / "Annotations" / "2.xml"
    path.unlink()
    if xml is not None:
        path.write_text(xml)
    source = FlickrEntitiesSource(entities, entities / "images", "val")
    assert [source.key(i) for i in range(len(source))] == ["0#0", "1#0", "3#0"]
    assert [place for place, _ in source.left_out] == ["line 3"]
    assert "val.txt: 1 of 4 lines is left out: line 3" in capsys.readouterr().err


def test_a_picture_is_listed_twice(entities):
    (entities / "val.txt").write_text("0\n1\n0\n")
    with pytest.raises(UserError, match="the picture '0' comes twice in the list"):
        FlickrEntitiesSource(entities, entities / "images", "val")


def test_a_folder_without_annotations_is_taken(entities):
    for path in (entities / "Annotations").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"val.txt: .*see line 1 \(.*0.xml: No such file or directory\), 4 of 4 such"):
        FlickrEntitiesSource(entities, entities / "images", "val")


def boxes_xml(*boxes):
    """The XML of a picture of 40 x 30 with a box for each of the phrases 5, 6, …, numbered from 1 as in the files."""
    objects = []
    for entity, corners in enumerate(boxes, 5):
        sides = "".join(
            f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        )
        objects.append(f"<object><name>{entity}</name><bndbox>{sides}</bndbox></object>")
    size = "<size><width>40</width><height>30</height></size>"
    return f"<annotation>{size}{''.join(objects)}</annotation>"


@pytest.mark.parametrize(
    ("box", "dropped", "scored"),
    [
        ((1, 1, 0, 30), 1, 0),
        ((20, 5, 10, 9), 1, 0),
        ((5, 20, 9, 10), 1, 0),
        ((41, 1, 60, 30), 1, 0),
        ((1, 1, 1, 30), 1, 1),
        ((0, 0, 40, 30), 0, 0),
        ((30, 20, 60, 50), 0, 0),
    ],
)
def test_boxes_that_are_none_are_not_scored_and_counted(entities, box, dropped, scored):
    (entities / "Annotations" / "2.xml").write_text(boxes_xml(box, (3, 3, 9, 9)))
    (entities / "Sentences" / "2.txt").write_text(
        "[/EN#5/people A man] in [/EN#6/clothing a coat] .\n[/EN#5/people Someone] .\n"
    )
    source = FlickrEntitiesSource(entities, entities / "images", "val")
    assert (source.dropped, source.scored_all_the_same) == (dropped, scored)
    is_there = dropped == scored
    assert [source.key(i) for i in range(2, len(source))] == ["2#0", "2#1", "3#0"][:: 1 if is_there else 2]
    text, phrases = source.phrases(2)
    assert [text[slice(*phrase.span)] for phrase in phrases] == (["A man"] if is_there else []) + ["a coat"]
    assert phrases[-1].boxes.tolist() == [[2, 2, 8, 8]]
    assert len(source.regions(2).boxes) == 1 + is_there
