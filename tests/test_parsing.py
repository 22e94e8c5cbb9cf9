"""JSON and YAML of strangers: the values of good texts, and an ordinary error for every bad one."""

import pytest
import yaml

from fiber_cli.parsing import MAX_DEPTH, compose, parse_json, parse_yaml, plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1_000", 1000),
        ("010", 10),
        ("-3", -3),
        ("12:30", "12:30"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("2024-01-02", "2024-01-02"),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    read = plain(compose(text, "x"))
    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_read():
    read = plain(compose(".nan", "x"))
    assert read != read


def test_mappings_and_lists_become_plain_ones():
    assert plain(compose("a: {1: [x, 2]}\nb:", "x")) == {"a": {"1": ["x", 2]}, "b": None}


NESTED = 100_000


@pytest.mark.parametrize(
    "text",
    [
        "[" * NESTED + "]" * NESTED,
        '{"a":' * NESTED + "1" + "}" * NESTED,
        '[{"a":' * NESTED,
        b"[" * NESTED,
        "9" * 10_000,
        '{"a": -' + "1" * 5_000 + "}",
        "",
        "\x00",
        b"\xff\xfe\xff",
    ],
)
def test_json_without_bounds_is_an_ordinary_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_json_within_bounds_is_read_as_it_is():
    deep = "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH
    assert parse_json(deep)[0][0] == parse_json(deep)[0][0]
    assert parse_json(b'{"a": [1, 2.5, null, "x"]}') == {"a": [1, 2.5, None, "x"]}
    assert parse_json('{"a": 1, "a": 2}', object_pairs_hook=list) == [("a", 1), ("a", 2)]
    assert parse_json("9" * 400) == int("9" * 400)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2_000))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * NESTED, "deep in one another"),
        ("{a: " * NESTED, "deep in one another"),
        ("- " * 5_000 + "x", "deep in one another"),
        (LAUGHS, "aliases make more than"),
        (CHAIN, "deep in one another"),
        ("&a [*a]", "an alias stands inside"),
        ("a: &a {b: {c: *a}}", "an alias stands inside"),
        ("&a {*a : 1}", "an alias stands inside"),
        ("a: !!python/object/apply:os.system [echo]", "none of YAML's own"),
        ("!!python/name:os.system", "none of YAML's own"),
        ("a: !env HOME", "none of YAML's own"),
        ("9" * 5_000, "no int"),
        ("!!int x", "no int"),
        ("!!float [1]", "none of YAML's own"),
        ("*nothing", "undefined alias"),
        ("a: 1\n--- b", "."),
        ("\x00", "."),
        ("x" * (17 * 2**20), "characters"),
    ],
)
def test_yaml_without_bounds_is_an_ordinary_error(text, problem):
    with pytest.raises(yaml.YAMLError, match=problem):
        parse_yaml(text)


def test_aliases_that_end_are_read():
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: [*a, *a]") == {"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}, {"x": 1}]}
