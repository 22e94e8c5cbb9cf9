"""YAML as nodes: places, and settings put over a tree."""

import pytest
import yaml

from fiber_cli.config.yaml_nodes import is_null, override, place, reason
from fiber_cli.parsing import compose, plain


def test_places_name_the_file_and_the_line_of_each_node():
    root = compose("a: 1\nb:\n  - c\n", "some.yaml")
    assert place(root) == "some.yaml:1"
    _, (_, items) = root.value
    assert place(items.value[0]) == "some.yaml:3"
    assert place(compose("5", "command line")) == "command line"


def test_empty_documents_are_null_and_have_a_place():
    root = compose("# nothing\n", "some.yaml")
    assert is_null(root)
    assert place(root).startswith("some.yaml:")


@pytest.mark.parametrize(
    ("text", "assignment", "changed"),
    [
        ("a: {b: 1, c: 2}", "a.b=3", {"a": {"b": 3, "c": 2}}),
        ("a: [{b: 1}, 2]", "a.0.b=x", {"a": [{"b": "x"}, 2]}),
        ("a: [{b: 1}, 2]", "a.1=[5]", {"a": [{"b": 1}, [5]]}),
        ("", "a.b.c=1e3", {"a": {"b": {"c": 1000.0}}}),
        ("a: null", "a.b=1", {"a": {"b": 1}}),
        ("a: 1", "a=", {"a": None}),
        ("a: 1", " b =x=y", {"a": 1, "b": "x=y"}),
    ],
)
def test_an_override_changes_what_it_names_alone(text, assignment, changed):
    root = compose(text or "{}", "x")
    assert override(root, assignment) is None
    assert plain(root) == changed


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a", "'a' is not of the form section.key=value"),
        ("a..b=1", "'a..b=1' is not of the form section.key=value"),
        ("=1", "'=1' is not of the form section.key=value"),
        ("a=[", "a: '[' is not valid YAML: "),
        ("a.b=1", "a.b: '1' is a single value, it has no 'b'"),
        ("l.2=1", "l.2: the list has 2 items, counted from 0; there is no '2'"),
        ("l.x.y=1", "l.x.y: the list has 2 items, counted from 0; there is no 'x'"),
    ],
)
def test_an_override_that_does_not_fit_is_told_and_changes_nothing(assignment, message):
    root = compose("{a: 1, l: [1, 2]}", "x")
    problem = override(root, assignment)
    assert problem is not None
    assert problem.startswith(f"command line: {message}")
    assert plain(root) == {"a": 1, "l": [1, 2]}


@pytest.mark.parametrize("text", ["[1, 2", "a: b: c", "\t- x", "'open"])
def test_what_is_wrong_with_a_text_is_one_line(text):
    with pytest.raises(yaml.YAMLError) as caught:
        compose(text, "x")
    told = reason(caught.value)
    assert told
    assert "\n" not in told
