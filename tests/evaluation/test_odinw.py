"""Lists of detection sets."""

import json
from pathlib import Path

import pytest
import yaml

from fiber_cli.errors import UserError
from fiber_cli.evaluation.datasets import eval_data
from fiber_cli.evaluation.odinw import read_odinw


def test_entries_keep_their_prompts_and_find_their_files(tmp_path):
    entries = [{"name": "a", "json": "a/i.json", "images": "a"}, {"name": "b", "json": "/b.json", "images": "b"}]
    entries[1]["prompts"] = {"cat": {"prefix": "a "}}
    for ending, dump in (("yaml", yaml.safe_dump), ("json", json.dumps)):
        path = tmp_path / f"list.{ending}"
        path.write_text(dump(entries))
        first, second = read_odinw(path)
        assert Path(first.json) == tmp_path / "a" / "i.json"
        assert first.prompts == {}
        assert second.json == "/b.json"
        assert second.prompts == entries[1]["prompts"]


def test_results_do_not_say_which_prompts_a_list_has(tmp_path):
    path = tmp_path / "list.yaml"
    entry = {"name": "a", "json": "a.json", "images": "a"}
    path.write_text(json.dumps([entry]))
    assert eval_data(str(path), "detection").details == {"prompts": "names"}
    path.write_text(json.dumps([entry, {**entry, "name": "b", "prompts": {"cat": {"prefix": "a "}}}]))
    assert eval_data(str(path), "detection").details == {"prompts": {"b": {"cat": {"prefix": "a "}}}}


@pytest.mark.parametrize(
    "wrong",
    [
        "a name alone",
        "an unknown key",
        "one name twice",
        "text",
        "a number as json",
        "an empty name",
        "a list as prompts",
    ],
)
def test_wrong_lists_are_told_with_the_entry(tmp_path, wrong):
    entry = {"name": "a", "json": "a/i.json", "images": "a"}
    contents = {
        "a name alone": [{"name": "a"}],
        "an unknown key": [{**entry, "promts": {}}],
        "one name twice": [entry] * 2,
        "text": "text",
        "a number as json": [{**entry, "json": 7}],
        "an empty name": [{**entry, "name": " "}],
        "a list as prompts": [{**entry, "prompts": ["cat"]}],
    }
    path = tmp_path / "list.json"
    path.write_text(json.dumps(contents[wrong]))
    with pytest.raises(UserError, match="entry"):
        read_odinw(path)


@pytest.mark.parametrize(
    "text", ["[]", "- &a [*a]", "!!python/object/apply:os.system [echo]", "[" * 10_000, "\xff\xfe"]
)
def test_lists_that_are_empty_or_have_no_end_are_one_line(tmp_path, text):
    path = tmp_path / "sets.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError) as told:
        read_odinw(path)
    assert str(told.value).startswith(f"{path}: ")
    assert "\n" not in str(told.value)
