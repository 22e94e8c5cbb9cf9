"""A list that is written as it comes is the JSON of the whole."""

import io
import json

import pytest

from fiber_cli.inference.json_list import JsonList


@pytest.mark.parametrize("items", [[], [{"a": 1}], [1, "zwei äöü", None]])
def test_a_list_of_any_length_is_valid_json(items):
    file = io.StringIO()
    written = JsonList(file)
    for item in items:
        written.add(item)
    written.close()
    assert json.loads(file.getvalue()) == items
    assert "\\u" not in file.getvalue()
    assert not file.closed
