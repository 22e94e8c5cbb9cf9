"""Text as files have it: encodings, line ends, and JSON that any terminal can show."""

import json

import pytest

from fiber_cli.errors import UserError
from fiber_cli.parsing import parse_json
from fiber_cli.text_files import NotText, decode_text, dump_json, lines_of, read_text, utf8


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_is_part_of_the_text(encoding):
    assert decode_text("\u00e9\n".encode(encoding)) == "\u00e9\n"
    assert utf8("\u00e9\n".encode(encoding)) == "\u00e9\n".encode()
    assert parse_json('"\u00e9"'.encode(encoding)) == "\u00e9"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9", r"not UTF-8 at byte 4 \(0xe9\); save it as UTF-8, or as UTF-16 with its byte-order mark"),
        (b"a\nb\r\nc\rd\xe9", r"not UTF-8 in line 4, at byte 9 "),
        (b"\xef\xbb\xbfa\n\xff", r"not UTF-8 in line 2, at byte 6 \(0xff\)"),
        (b"\xff\xfea", r"not UTF-16, as its mark says, at byte 3 .*; save it as UTF-8"),
    ],
)
def test_where_bytes_are_no_text_is_not_told(content, message, tmp_path):
    with pytest.raises(NotText, match=message):
        decode_text(content)
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=f"a.txt: {message}"):
        read_text(tmp_path / "a.txt")


def test_lines_end_where_their_system_does_not_end_them():
    assert lines_of("a\r\nb\rc\nd\u2028e\x0cf\n\n") == ["a", "b", "c", "d\u2028e\x0cf", ""]
    assert lines_of("") == []
    assert lines_of("\ufeffa\n\ufeffb") == ["a", "b"], "the marks of two files that were put together"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_json_moves_a_terminal_or_says_something_else(encoding):
    value = {"a\nb\x1b\x7f\x9b": ["\u202e\u2028", "caf\udce9", "\u00e9 \u732b", None, 1.5]}
    text = dump_json(value, indent=2, encoding=encoding)
    assert json.loads(text.encode(encoding)) == value
    assert text.replace("\n", "").isprintable()
    assert ("\u732b" in text) == (encoding == "utf-8")
