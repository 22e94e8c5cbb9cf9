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
