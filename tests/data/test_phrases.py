"""Phrases of sentences: the ones given and the ones that nltk's tagger finds."""

import pytest

from fiber_cli.data.phrases import english_tagger, locate_phrases, noun_phrases
from fiber_cli.errors import UserError


@pytest.fixture
def tagger(shared, monkeypatch):
    import nltk

    english_tagger.cache_clear()
    monkeypatch.setattr(nltk.data, "path", [str(shared / "data" / "nltk_data")])
    yield
    english_tagger.cache_clear()


@pytest.mark.usefixtures("tagger")
def test_noun_phrases():
    sentence = "A man in a blue shirt is riding two large brown horses near the well-known beach."
    found = noun_phrases(sentence)
    assert [phrase for phrase, _ in found] == [
        "A man", "a blue shirt", "two large brown horses", "the well-known beach",
    ]  # fmt: skip
    assert all(sentence[a:b] == phrase for phrase, (a, b) in found)
    assert [phrase for phrase, _ in noun_phrases("his little sister's umbrella")] == ["his little sister", "umbrella"]
    assert noun_phrases("") == noun_phrases("running quickly") == []


def test_a_missing_tagger_says_how_to_get_it(monkeypatch, tmp_path):
    import nltk

    english_tagger.cache_clear()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(UserError, match=r"python -m nltk\.downloader averaged_perceptron_tagger_eng"):
        noun_phrases("a cat")
    english_tagger.cache_clear()


def test_given_phrases_are_located():
    sentence = "A dog and a dog with a dogged man"
    spans = locate_phrases(sentence, ["a dog", "man", "A DOG"])
    assert spans == [(0, 5), (30, 33), (10, 15)]
    for missing in ("cat", "", "dogge"):
        with pytest.raises(UserError, match="is not in"):
            locate_phrases(sentence, [missing])
    with pytest.raises(UserError):
        locate_phrases(sentence, ["man", "man"])
