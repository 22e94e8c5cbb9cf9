"""Files that users give: what is wrong is told with its place."""

import pytest

from fiber_cli.data.files import expecting, read_bytes, read_json, read_lines
from fiber_cli.data.source import BadSample
from fiber_cli.errors import UserError


def test_missing_and_malformed_files_are_told_with_what_is_wanted(tmp_path):
    with pytest.raises(UserError, match=r"absent.*: No such file or directory; give the path of a list"):
        read_bytes(tmp_path / "absent", "a list")
    with pytest.raises(UserError, match="Is a directory"):
        read_bytes(tmp_path, "a list")
    (tmp_path / "cut.json").write_text('{"a": [1')
    with pytest.raises(UserError, match=r"cut.json: not valid JSON \(.*\); fetch a list again"):
        read_json(tmp_path / "cut.json", "a list")


def test_objects_are_replaced_as_they_are_parsed(tmp_path):
    (tmp_path / "a.json").write_text('[{"phrase": "x"}, {"other": 1}]')
    content = read_json(tmp_path / "a.json", "a list", lambda item: item.get("phrase", item))
    assert content == ["x", {"other": 1}]


def test_lines_keep_their_numbers_and_what_json_texts_may_hold(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('"a\u2028b"\n\n  \n"c"'.encode())
    assert list(read_lines(tmp_path / "a.jsonl", "a list")) == [(1, '"a\u2028b"'.encode()), (4, b'"c"')]


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), ValueError("x"), AttributeError("x"), BadSample("x")])
def test_unexpected_content_becomes_one_message(error):
    with (
        pytest.raises(
            UserError, match=rf"a.json: not a list, see entry 3 \({type(error).__name__}: '?x'?\); wanted is \[\]"
        ),
        expecting("a.json", "a list", "[]", see=lambda: "entry 3"),
    ):
        raise error
    with pytest.raises(UserError) as raised, expecting("a.json", "a list"):
        raise error
    assert str(raised.value).endswith("x)") or str(raised.value).endswith("'x')")


def test_other_errors_pass():
    with pytest.raises(OSError, match="full"), expecting("a.json", "a list"):
        raise OSError("full")
