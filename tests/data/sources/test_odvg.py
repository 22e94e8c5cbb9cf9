"""ODVG's JSONL, detection and grounding records."""

import json

import pytest
from odvg_records import DETECTION, GROUNDING, check_odvg
from region_files import write_image

from fiber_cli.data.sources.odvg import OdvgSource
from fiber_cli.errors import UserError


def test_both_kinds_of_records_are_read(tmp_path):
    write_image(tmp_path / "a.png")
    other = {**DETECTION, "detection": {"instances": [{"bbox": [0, 0, 9, 9], "label": 2, "category": "person"}]}}
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, (GROUNDING, DETECTION, other))) + "\n\n")
    source = OdvgSource(path, tmp_path)
    assert source.names == ["person", "cat"]
    assert len(source) == 3
    check_odvg(source.regions(0), source.regions(1))
    (tmp_path / "labels.json").write_text(json.dumps({"12": "Cat_", "2": "person (grown)"}))
    assert OdvgSource(path, tmp_path, tmp_path / "labels.json").names == ["person (grown)", "Cat_"]
    path.write_text(json.dumps(GROUNDING) + "\n" + json.dumps({"filename": "a.png"}))
    with pytest.raises(UserError, match="line 2"):
        OdvgSource(path, tmp_path)


def detected(label, category, bbox=(1, 2, 11, 7)):
    return {"filename": "a.png", "detection": {"instances": [{"bbox": bbox, "label": label, "category": category}]}}


def source_of(tmp_path, *records):
    write_image(tmp_path / "a.png")
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, records)))
    return OdvgSource(tmp_path / "x.jsonl", tmp_path)


def test_a_label_has_two_names(tmp_path):
    with pytest.raises(UserError, match="label 1 is 'cat' and also 'dog'; give each label one name"):
        source_of(tmp_path, detected(1, "cat"), detected("1", "dog"))
    with pytest.raises(UserError, match="the name 'cat' comes twice"):
        source_of(tmp_path, detected(1, "cat"), detected(2, "cat"))


@pytest.mark.parametrize(
    ("labels", "said"),
    [('{"1": "cat", "1": "dog"}', "label 1 comes twice"), ('{"1": "cat", "2": "cat"}', "the name 'cat' comes twice")],
)
def test_a_label_map_contradicts_itself(tmp_path, labels, said):
    source_of(tmp_path, detected(1, "cat"))
    (tmp_path / "labels.json").write_text(labels)
    with pytest.raises(UserError, match=said):
        OdvgSource(tmp_path / "x.jsonl", tmp_path, tmp_path / "labels.json")


@pytest.mark.parametrize(
    "bad",
    [
        {"filename": "a.png"},
        {**GROUNDING, "filename": 3},
        {**GROUNDING, "height": -1},
        detected("one", "cat"),
        detected(1, None),
        detected(1, "cat", [1, 2, 3]),
        detected(1, "cat", [1, 2, 3, None]),
        detected(1, "cat", [1, 2, 3, float("nan")]),
        {"filename": "a.png", "grounding": {"caption": "cat", "regions": [{"bbox": [1, 2, 9, 9], "phrase": "dog"}]}},
        {"filename": "a.png", "grounding": {"caption": "cat", "regions": [{"bbox": [], "tokens_positive": [[0, 9]]}]}},
        "record",
    ],
)
def test_one_bad_record_refuses_the_file(tmp_path, bad, capsys):
    source = source_of(tmp_path, detected("1", "cat"), bad, GROUNDING, detected(1.0, "cat"))
    assert [source.key(i) for i in range(3)] == ["0:a.png", "1:a.png", "2:a.png"]
    assert [source.regions(i).labels.tolist() for i in (0, 2)] == [[0], [0]]
    assert [place for place, _ in source.left_out] == ["line 2"]
    assert "x.jsonl: 1 of 4 lines is left out: line 2" in capsys.readouterr().err


def test_boxes_that_are_none_are_not_counted(tmp_path):
    boxes = [[], None, [5, 5, 5, 9], [9, 9, 3, 3], [3, 3, 4, 9], [3, 3, 9, 9]]
    source = source_of(tmp_path, *(detected(1, "cat", box) for box in boxes))
    assert (source.dropped, source.scored_all_the_same) == (5, 1)


def with_map(tmp_path, labels, *records):
    write_image(tmp_path / "a.png")
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, records)))
    return OdvgSource(tmp_path / "x.jsonl", tmp_path, tmp_path / "labels.json")


def test_a_label_map_that_all_records_contradict_is_refused(tmp_path):
    said = r"label 0 is 'dog' in .*labels.json, but the record's category is 'cat'.*4 of 4 such"
    with pytest.raises(UserError, match=said):
        with_map(tmp_path, {"0": "dog", "1": "cat"}, *[detected(0, "cat"), detected(1, "dog")] * 2)


@pytest.mark.parametrize(
    ("name", "category", "is_good"),
    [
        ("hot_dog", "hot dog", True),
        ("bow_(weapon)", "bow", True),
        ("Cat", "cat", True),
        ("cat", None, True),
        ("cat", "cats", False),
        ("hot dog", "dog", False),
    ],
)
def test_one_record_contradicts_the_label_map(tmp_path, name, category, is_good):
    source = with_map(tmp_path, {"0": name, "1": "pig"}, *[detected(1, "pig")] * 3, detected(0, category))
    assert source.names == [name, "pig"]
    assert len(source) == 3 + is_good
    assert [place for place, _ in source.left_out] == ([] if is_good else ["line 4"])


def test_a_part_that_is_null_is_none(tmp_path):
    """Exports write both keys, and null for the one that a record does not have."""
    records = {**detected(1, "cat"), "grounding": None}, {**GROUNDING, "detection": None}
    for source in (source_of(tmp_path, *records), with_map(tmp_path, {"1": "cat"}, *records)):
        assert source.left_out == []
        assert source.regions(0).labels.tolist() == [0]
        assert source.regions(1).caption == "a cat and a dog"
    with pytest.raises(UserError, match="line 1"):
        source_of(tmp_path, {"filename": "a.png", "grounding": None, "detection": None})


def test_boxes_to_train_on_and_those_without_words_are_counted(tmp_path):
    """The last region is as thin as a pixel, and not trained on."""
    regions = [
        {"bbox": [1, 2, 11, 7], "phrase": "a dog"},
        {"bbox": [[0, 0, 4, 4], [5, 5, 9, 9]]},
        {"bbox": [2, 2, 9, 9], "phrase": [], "tokens_positive": []},
        {"bbox": [2, 2, 3, 9]},
    ]
    grounding = {**GROUNDING, "grounding": {"caption": "a cat and a dog", "regions": regions}}
    source = source_of(tmp_path, grounding, detected(1, "cat"), GROUNDING)
    assert (source.trained_boxes, source.wordless_boxes) == (4 + 1 + 3, 3)
