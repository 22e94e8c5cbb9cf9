"""Phrases of an English sentence: where given ones stand, and which noun phrases there are."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from fiber_cli.data.records import Span
from fiber_cli.errors import UserError

if TYPE_CHECKING:
    from nltk.tag import PerceptronTagger

_WORD = re.compile(r"\w+(?:-\w+)*|['\u2019]s\b|[^\w\s]")
#: Part of speech → a letter for `_NOUN_PHRASE`: determiner, adjective or number, participle. Nouns are "n".
_LETTERS = {"DT": "d", "PRP$": "d", "CD": "a", "JJ": "a", "JJR": "a", "JJS": "a", "VBG": "v", "VBN": "v"}
_NOUN_PHRASE = re.compile(r"d[av]*n+|a*n+")


def locate_phrases(sentence: str, phrases: Sequence[str]) -> list[Span]:
    """Where each phrase stands in the sentence, as whole words in either case; a phrase given again is looked for
    behind the place before. `UserError` where one is not there."""
    end_of_last: dict[str, int] = {}
    spans = []
    for phrase in phrases:
        words = phrase.strip()
        key = words.casefold()
        pattern = re.compile(rf"(?<!\w){re.escape(words)}(?!\w)", re.IGNORECASE)
        match = pattern.search(sentence, end_of_last.get(key, 0)) if words else None
        if not match:
            raise UserError(f"phrase {phrase!r} is not in {sentence!r}; phrases must be the sentence's own words")
        end_of_last[key] = match.end()
        spans.append(match.span())
    return spans


def noun_phrases(sentence: str) -> list[tuple[str, Span]]:
    """Noun phrases of an English sentence, without overlap: determiner, adjectives and numbers, nouns.

    Participles belong to a phrase only behind its determiner: "a running dog", but "man / riding / horses".
    """
    words = list(_WORD.finditer(sentence))
    tagged = english_tagger().tag([word[0] for word in words])
    letters = "".join(_letter(tag) for _, tag in tagged)
    phrases = []
    for match in _NOUN_PHRASE.finditer(letters):
        start = words[match.start()].start()
        end = words[match.end() - 1].end()
        phrases.append((sentence[start:end], (start, end)))
    return phrases


def _letter(tag: str) -> str:
    """The letter for a part of speech in the Penn treebank's names; "." for what is in no noun phrase."""
    if tag.startswith("NN"):
        return "n"
    return _LETTERS.get(tag, ".")


@cache
def english_tagger() -> "PerceptronTagger":
    from nltk.tag import PerceptronTagger

    try:
        return PerceptronTagger(lang="eng")
    except LookupError:
        raise UserError(
            "finding phrases in a sentence needs nltk's English tagger; get it by `python -m nltk.downloader "
            "averaged_perceptron_tagger_eng`, or set NLTK_DATA to the folder that holds it, or give the phrases"
        ) from None
