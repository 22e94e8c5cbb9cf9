"""Large JSON files are read record by record, and give what they give at once."""

import json

import pytest

from fiber_cli.data import json_lists
from fiber_cli.data.files import read_json
from fiber_cli.data.json_lists import ListInFile, read_json_lists
from fiber_cli.errors import UserError

CONTENTS = [
    '{"images": [1, 2.5e3, -0.125, 1e+20, true, null, "a\\"]\\\\", {"b": [{}]}, []], "info": {"x": [1]}, "n": 1e5}',
    ' \n{ "a" : [ ] ,\t"b":[ [1 ,2],\r\n"\\ud83d\\ude00é😀" ] } \n',
    "{}",
    '{"a": [NaN, Infinity, 12345678901234567890123]}',
    '{"deep": ' + "[" * 50 + "]" * 50 + "}",
]


@pytest.fixture(params=[1, 3, 7, 1000])
def piece(request, monkeypatch):
    monkeypatch.setattr(json_lists, "LARGE", 0)
    monkeypatch.setattr(json_lists, "PIECE", request.param)


def whole(value):
    """With lists in place of those in the file."""
    return {key: list(each) if isinstance(each, ListInFile) else each for key, each in value.items()}


@pytest.mark.parametrize("content", CONTENTS)
def test_values_are_other_ones_than_at_once(tmp_path, piece, content):
    file = tmp_path / "a.json"
    file.write_text(content, encoding="utf-8")
    read = read_json_lists(file, "a JSON")
    assert repr(whole(read)) == repr(json.loads(content))
    for key, value in json.loads(content).items():
        assert isinstance(read[key], ListInFile) == isinstance(value, list)
        if isinstance(value, list):
            assert len(read[key]) == len(list(read[key])) == len(value)


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"{",
            b'{"a": [1, 2}',
            b'{"a": [1 2]}',
            b'{"a": [1,]}',
            b'{"a": [1]} x',
            b'{"a": [01]}',
            b'{"a": ["\n"]}',
        ),
        *(b'{"a": [tru]}', b'{"a": "\xff"}', b"{a: 1}", b'{"a": [1e]}', b'{"a": [' + b"[" * 100_000, b'{"a": 1,}'),
        b'{"a": [' + b"1" * 5000 + b"]}",
    ],
)
def test_what_is_no_json_is_told_otherwise_than_of_small_files(tmp_path, piece, content):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(UserError) as small:
        read_json(file, "a JSON")
    with pytest.raises(UserError) as large:
        read_json_lists(file, "a JSON")
    assert str(large.value) == str(small.value)


@pytest.mark.parametrize("content", ['[{"a": 1}]', '{"a": [1], "a": [2]}', '"text"', "3"])
def test_other_values_than_objects_with_each_key_once_are_read(tmp_path, piece, content):
    file = tmp_path / "a.json"
    file.write_text(content)
    assert read_json_lists(file, "a JSON") == json.loads(content)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marked_files_are_read_as_text_of_another_encoding(tmp_path, piece, encoding):
    file = tmp_path / "a.json"
    file.write_text('{"a": ["é"]}', encoding=encoding)
    assert read_json_lists(file, "a JSON") == {"a": ["é"]}


def test_a_file_that_changes_under_its_reader_gives_half_of_it(tmp_path, piece):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"a": list(range(2000))}))
    listed = read_json_lists(file, "a JSON")["a"]
    file.write_text("{}")
    with pytest.raises(UserError, match="has changed while it was read"):
        list(listed)


def test_missing_files_and_pipes_are_told_otherwise(tmp_path, piece):
    with pytest.raises(UserError, match="give the path of a JSON"):
        read_json_lists(tmp_path / "none.json", "a JSON")
