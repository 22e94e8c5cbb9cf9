"""Names and texts in lines: nothing splits a line, and what is shown can be told from what it looks like."""

import ast

import pytest

from fiber_cli.characters import cell, one_line, printable_lines, row, says_nothing


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J\x00\x07", r"\x1b[2J\x00\x07"),
        ("\x7f\x85\x9b", r"\x7f\x85\x9b"),
        ("\u202e\u2066\u200f\u061c", r"\u202e\u2066\u200f\u061c"),
        ("\u2028\u2029\ufeff", r"\u2028\u2029\ufeff"),
        ("caf\udce9", r"caf\udce9"),
        ("\ud800", r"\ud800"),
        ("gar\u00e7on \u732b \U0001f468\u200d\U0001f469", "gar\u00e7on \u732b \U0001f468\u200d\U0001f469"),
        ("C:\\new", "C:\\new"),
    ],
)
def test_a_character_moves_a_terminal_or_another_is_lost(text, shown):
    assert one_line(text) == shown
    assert one_line(shown) == shown, "a message in a message is escaped twice"


@pytest.mark.parametrize("text", ["a\nb", "a\\nb", "\\", "\\\\\n", "\udce9\\udce9", "a\tb\\"])
def test_a_cell_stands_for_two_texts(text):
    assert ast.literal_eval(f'"{cell(text)}"') == text
    assert "\t" not in cell(text)


def test_a_row_has_more_cells_than_it_is_given():
    assert row(["a\tb", 1.5, "c\nd"]) == "a\\tb\t1.5\tc\\nd"


def test_lines_lose_their_ends_or_tabs():
    assert printable_lines("a\tb\n\x1bc\r\n") == "a\tb\n\\x1bc\\r\n"


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u200b", "\u2060 \ufeff", "\x00", "\xad", "\u3000"])
def test_a_text_that_shows_nothing_passes_for_one(text):
    assert says_nothing(text)


@pytest.mark.parametrize("text", ["a", " .", "猫", "\u200bq", "é"])
def test_a_text_passes_for_none(text):
    assert not says_nothing(text)
