import pytest

from fiber_cli.data import words
from fiber_cli.data.words import LONGEST, words_in, words_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Dog on the beach.", ["a", "dog", "on", "the", "beach"]),
        ("the man's T-shirt, 3 cats!", ["the", "man", "t", "shirt", "3", "cats"]),
        ("don\u2019t 'quote' o'clock", ["don't", "quote", "o'clock"]),
        ("cell_phone/tv (set)", ["cell", "phone", "tv", "set"]),
        ("cafe\u0301 \u00c4PFEL", ["caf\u00e9", "\u00e4pfel"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
        ("\u4e00\u53ea\u732b", ["\u4e00", "\u53ea", "\u732b"]),
        ("\x1b[31m \ud800 '' ", ["31m"]),
        ("", []),
    ],
)
def test_words_are_split_otherwise_than_said(text, expected):
    assert words_of(text) == expected


def test_what_is_no_word_for_its_length_is_taken_for_one():
    assert words_of("x" * LONGEST + " " + "y" * (LONGEST + 1)) == ["x" * LONGEST]


def test_words_are_lost_where_pieces_are_taken_apart_in_between(monkeypatch):
    texts = [f"dog-{number} cat" for number in range(50)]
    whole = words_in(texts)
    monkeypatch.setattr(words, "_PIECES", 7)
    assert words_in(texts) == whole == {"dog", "cat", *map(str, range(50))}


def test_more_words_than_can_be_kept_are_kept_in_part(monkeypatch):
    monkeypatch.setattr(words, "MOST", 3)
    assert words_in(["a b", "c"]) == {"a", "b", "c"}
    assert words_in(["a b", "c d"]) is None
