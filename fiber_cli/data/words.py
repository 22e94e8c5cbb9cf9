"""The words of texts, as what a checkpoint was trained on is told from what it never saw.

A word is a run of letters, their marks and digits, in small letters; an apostrophe may stand inside it, and the `'s` of
possession is no part of it. All else separates words, `_` and `-` too. Of scripts that put no space between words each
character is a word, so that what is part of a known text is known.
"""

import unicodedata
from collections.abc import Iterable

#: Longer ones are no words and are left out on both sides.
LONGEST = 64
#: More words than that are kept of no training: nothing is then known of it.
MOST = 1 << 20
#: How many different pieces of text between white space are gathered before they are taken apart.
_PIECES = 1 << 16
#: How the names of characters begin whose scripts have no spaces.
_WITHOUT_SPACES = ("CJK ", "HIRAGANA", "KATAKANA", "THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ")
_APOSTROPHES = "'\u2019"


class _Characters(dict[int, str]):
    """Characters as words have them, spaces for those that separate; filled as they come."""

    def __missing__(self, code: int) -> str:
        self[code] = _in_words(chr(code))
        return self[code]


def _in_words(character: str) -> str:
    if character in _APOSTROPHES:
        return "'"
    if unicodedata.category(character)[0] not in "LMN":
        return " "
    is_a_word = unicodedata.name(character, "").startswith(_WITHOUT_SPACES)
    return f" {character} " if is_a_word else character


_CHARACTERS = _Characters()


def words_of(text: str) -> list[str]:
    """The words of a text, in order, as often as they come."""
    words = []
    composed = unicodedata.normalize("NFC", text.lower())
    for piece in composed.translate(_CHARACTERS).split():
        word = piece.strip("'").removesuffix("'s")
        if word and len(word) <= LONGEST:
            words.append(word)
    return words


class WordGatherer:
    """Gathers the words of texts that are added one by one."""

    def __init__(self) -> None:
        self._words: set[str] = set()
        # Of millions of captions few pieces are new, and only those are looked into.
        self._pieces: set[str] = set()

    def add(self, text: str) -> None:
        if not self.is_full:
            self._pieces.update(text.split())
        if len(self._pieces) > _PIECES:
            self._take_apart()

    @property
    def is_full(self) -> bool:
        """Whether there are more words than are kept."""
        return len(self._words) > MOST

    def words(self) -> frozenset[str] | None:
        """The different words of all texts so far; None where there are more than MOST."""
        self._take_apart()
        return None if self.is_full else frozenset(self._words)

    def _take_apart(self) -> None:
        self._words.update(words_of(" ".join(self._pieces)))
        self._pieces.clear()


def words_in(texts: Iterable[str]) -> frozenset[str] | None:
    """The different words of all texts; None where there are more than MOST."""
    gatherer = WordGatherer()
    for text in texts:
        gatherer.add(text)
        if gatherer.is_full:
            return None
    return gatherer.words()
