"""Statements about one image or two: NLVR2's naming and NLVR's, labels, groups, and lines that are wrong."""

import pickle
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from statement_files import reds, statements_about_pairs, write_statements

from fiber_cli.data.records import Statement
from fiber_cli.data.source import BadSample, sample_id
from fiber_cli.data.sources.statements import StatementFile
from fiber_cli.errors import UserError


@pytest.mark.parametrize("where", ["{split}/{directory}", "{directory}", ""])
@pytest.mark.parametrize("directory", [37, "a", None])
@pytest.mark.parametrize("split", ["train", "test1"])
def test_the_naming_of_nlvr2(tmp_path, where, directory, split):
    """In the folder of the split, of the line's directory, of both or of neither; `directory` is a number in train and
    missing elsewhere."""
    base = where.format(split=split, directory="" if directory is None else directory).strip("/")
    files = {}
    for pair, levels in (("10-0", (50, 100)), ("10-1", (150, 200))):
        for side, red in enumerate(levels):
            files[str(Path(base, f"{split}-{pair}-img{side}.png"))] = red
    rows = []
    for name in ("10-1-0", "10-0-0", "10-0-1"):
        row = {"sentence": f"text {name}", "identifier": f"{split}-{name}", "label": "True", "writer": 3}
        rows.append(row if directory is None else row | {"directory": directory})
    source = pickle.loads(pickle.dumps(StatementFile(*write_statements(tmp_path, files, rows))))
    assert len(source) == 3
    assert source.name == "some"
    assert source.images_each == 2
    assert [reds(source.images(i)) for i in range(3)] == [[150, 200], [50, 100], [50, 100]]
    assert source.key(1) == f"{split}-10-0-0"
    assert sample_id(source, 1) == f"some/{split}-10-0-0"
    assert source.statements(2) == (Statement("text 10-0-1", True, f"{split}-10-0-1", f"{split}-10-1"),)
    # What counts together is one sentence with all the pairs of its set.
    groups = [source.statements(i)[0].group for i in range(3)]
    assert groups[0] == groups[1] != groups[2]
    assert sorted(source.order(np.random.default_rng(0))) == [0, 1, 2]


def test_left_and_right_are_named_by_the_line(tmp_path):
    rows = [
        {"sentence": "one", "identifier": "x", "left": "a/1.png", "right": "2.png", "label": "false"},
        {"sentence": "two", "identifier": 7, "left": "2.png", "right": "a/1.png", "label": None},
    ]
    source = StatementFile(*write_statements(tmp_path, {"a/1.png": 50, "2.png": 100}, rows))
    assert [reds(source.images(i)) for i in range(2)] == [[50, 100], [100, 50]]
    assert source.statements(0)[0].label is False
    assert source.statements(1) == (Statement("two", None, "7", "7"),)
    assert reds([source.image(1)]) == [100]


def test_a_sentence_of_nlvr_counts_as_a_whole(tmp_path):
    """Identifiers are sentence-image-order."""
    rows = [
        {"image": "12-0.png", "sentence": "t", "identifier": "12-0-0", "label": False},
        {"image": "12-1.png", "sentence": "t", "identifier": "12-1-0", "label": True},
        {"image": "12-0.png", "sentence": "other", "identifier": "13-0-0"},
    ]
    source = StatementFile(*write_statements(tmp_path, {"12-0.png": 50, "12-1.png": 100}, rows))
    assert source.images_each == 1
    assert [reds(source.images(i)) for i in range(3)] == [[50], [100], [50]]
    assert [source.statements(i)[0][1:4] for i in range(3)] == [
        (False, "12-0-0", "12"),
        (True, "12-1-0", "12"),
        (None, "13-0-0", "13"),
    ]


def test_labels_are_texts_or_booleans(tmp_path):
    written = ["True", "False", "true", "FALSE", True, False, "None", None, 1, 0]
    rows = [{"sentence": "t", "identifier": str(n), "image": "a.png", "label": v} for n, v in enumerate(written)]
    rows.append({"sentence": "t", "identifier": "none", "image": "a.png"})
    source = StatementFile(*write_statements(tmp_path, {"a.png": 50}, rows))
    labels = [source.statements(i)[0].label for i in range(11)]
    assert labels == [True, False, True, False, True, False, None, None, True, False, None]


def test_lines_end_at_line_breaks_alone(tmp_path):
    """JSON texts may hold other characters that Python's splitlines breaks at; empty lines are no statements."""
    row = {"sentence": "a\u2028b\x85c", "image": "a.png", "label": True}
    rows = [row | {"identifier": name} for name in ("1-0", "1-1")]
    jsonl, images = write_statements(tmp_path, {"a.png": 50}, rows)
    jsonl.write_bytes(b"\r\n\n" + jsonl.read_bytes().replace(b"\n", b"\r\n\r\n") + b"\r\n")
    source = StatementFile(jsonl, images)
    assert len(source) == 2
    assert source.statements(1)[0].text == "a\u2028b\x85c"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"sentence": "t", ', "JSONDecodeError: Expecting property name"),
        ("3", "TypeError: 'int' object"),
        ('["sentence"]', "TypeError: list indices"),
        ('{"identifier": "dev-1-0-0"}', "KeyError: 'sentence'"),
        ('{"sentence": "t"}', "KeyError: 'identifier'"),
        ('{"sentence": "t", "identifier": "dev-1-0-0", "label": "maybe"}', "ValueError: the label must be 0 or 1"),
        ('{"sentence": "t", "identifier": "dev-1-0-0", "label": 2}', "ValueError: the label must be 0 or 1"),
        ('{"sentence": "t", "identifier": "dev-1-0"}', "ValueError: not enough values to unpack"),
        ('{"sentence": "t", "identifier": 7}', "AttributeError: 'int' object"),
        ('{"sentence": "t", "identifier": "x", "left": "a.png"}', "KeyError: 'right'"),
        ('{"sentence": 5, "identifier": "x", "image": "a.png"}', "TypeError: the sentence must be text"),
        ('{"sentence": "t", "identifier": "x", "image": null}', "TypeError: an image file must be text"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    rows = [{"sentence": "t", "identifier": "dev-1-0-0", "label": True}]
    jsonl, images = write_statements(tmp_path, {"dev-1-0-img0.png": 1, "dev-1-0-img1.png": 2}, rows)
    jsonl.write_text(jsonl.read_text() + "\n\n" + line)
    with pytest.raises(
        UserError, match=r"some.jsonl: not a JSONL file of statements, see line 3 \(" + re.escape(said)
    ) as raised:
        StatementFile(jsonl, images)
    assert 'wanted is {"sentence": …, "identifier": "split-set-pair-sentence", "label": "True"}' in str(raised.value)


def test_one_bad_line_refuses_the_file(tmp_path, capsys):
    rows = [{"sentence": f"t{n}", "identifier": f"{n}", "image": "a.png", "label": True} for n in range(5)]
    rows[2]["label"] = "maybe"
    source = StatementFile(*write_statements(tmp_path, {"a.png": 1}, rows))
    assert [source.key(i) for i in range(len(source))] == ["0", "1", "3", "4"]
    assert [place for place, _ in source.left_out] == ["line 3"]
    said = "some.jsonl: 1 of 5 lines is left out: line 3 (ValueError: the label must be 0 or 1, it is 'maybe')"
    assert said in capsys.readouterr().err


def test_an_identifier_comes_twice(tmp_path):
    rows = [{"sentence": "t", "identifier": name, "image": "a.png"} for name in ("1-0-0", "1-0-1", "1-0-0")]
    with pytest.raises(UserError, match="the identifier '1-0-0' comes twice"):
        StatementFile(*write_statements(tmp_path, {"a.png": 1}, rows))


def test_a_bad_file_is_named(tmp_path):
    rows = [{"sentence": "t", "identifier": "x", "image": "a.png"}]
    jsonl, images = write_statements(tmp_path, {"a.png": 1}, rows)
    with pytest.raises(UserError, match=r"absent.jsonl: No such file.*give the path of a JSONL file"):
        StatementFile(tmp_path / "absent.jsonl", images)
    with pytest.raises(UserError, match="absent: no such folder of images"):
        StatementFile(jsonl, tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds none of 1 images looked for, such as a.png"):
        StatementFile(jsonl, tmp_path)
    jsonl.write_text(jsonl.read_text() + '\n{"sentence": "t", "identifier": "y", "left": "a.png", "right": "a.png"}')
    with pytest.raises(UserError, match="some lines have one image and some have two; make a file of each"):
        StatementFile(jsonl, images)
    jsonl.write_text("\n \n")
    with pytest.raises(UserError, match=r"some.jsonl: holds no statement"):
        StatementFile(jsonl, images)
    jsonl.write_bytes(b'{"sentence": "\xe9"}')
    with pytest.raises(UserError, match=r"some.jsonl: .*line 1 .*not UTF-8 at byte"):
        StatementFile(jsonl, images)
    rows = [{"sentence": "t", "identifier": "dev-1-0-0", "label": "True"}]
    with pytest.raises(UserError, match=r"holds none of 1 images looked for, such as dev/dev-1-0-img0.png"):
        StatementFile(*write_statements(tmp_path, {}, rows, "nlvr2.jsonl"))


def test_broken_and_oversized_images_are_bad_samples(tmp_path):
    source = statements_about_pairs(tmp_path, broken=True)
    assert reds(source.images(0)) == [60, 100]
    with pytest.raises(BadSample, match="not a readable image"):
        source.images(1)
    (tmp_path / "images" / "dev-1-0-img1.png").unlink()
    with pytest.raises(BadSample, match=r"no such file.*dev-1-0-img1.png"):
        source.images(2)
    source.max_pixels = 700
    with pytest.raises(BadSample, match="more than 700 pixels"):
        source.images(0)


def test_real_statements(shared):
    folder = shared / "data" / "nlvr"
    train, val = (StatementFile(folder / f"statements_{s}.jsonl", folder / s) for s in ("train", "val"))
    assert (len(train), len(val)) == (5934, 1980)
    assert val.name == "statements_val"
    for source in (train, val):
        for i in range(0, len(source), 150):
            (image,) = source.images(i)
            assert image.size == (400, 100)
            assert image.mode == "RGB"
    by_group = defaultdict(set)
    for i in range(len(val)):
        (statement,) = val.statements(i)
        by_group[statement.group].add(statement.text)
    assert all(len(texts) == 1 for texts in by_group.values())
