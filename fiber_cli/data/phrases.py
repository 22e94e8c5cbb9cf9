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
#: Part of speech → a letter for `_NOUN_PHRASE`: determiner, adjective or number, participle, adverb, conjunction or
#: comma. Nouns are "n".
_LETTERS = {
    "DT": "d", "PRP$": "d", "CD": "a", "JJ": "a", "JJR": "a", "JJS": "a", "VBG": "v", "VBN": "v",
    "RB": "r", "RBR": "r", "RBS": "r", "CC": "c", ",": "c",
}  # fmt: skip
#: "a very large, black and white dog"; without a determiner "black and white dogs".
_NOUN_PHRASE = re.compile(r"d(?:r?[av](?:[rc]{0,2}[av])*r?)?n+|(?:a(?:c{0,2}a)*)?n+")
_NOUN_WITHOUT_NUMBER = "NN"
_PLURALS = ("NNS", "NNPS")
#: Determiners whose noun is no plural.
_SINGULAR = {"a", "an", "another", "each", "every", "this", "that"}

#: The words that say where something is, which taggers take for nouns: they belong to a noun phrase only before its
#: noun ("the left shoe"). "left of" and "on the right" name nothing that could be found.
_DIRECTIONS = {"left", "right", "north", "south", "east", "west"}
_NEARNESS = {"closest", "nearest", "farthest", "furthest", "closer", "nearer", "farther", "further", "far", "close"}
#: With a determiner these name a part of a thing, without one they are prepositions: "in front of".
_PARTS = {"front", "top", "bottom", "back", "rear", "middle", "center", "centre", "side", "upper", "lower"}
_PREPOSITIONS = {
    "above", "across", "against", "along", "alongside", "amid", "among", "around", "atop", "behind", "below", "beneath",
    "beside", "between", "beyond", "by", "in", "inside", "near", "next", "on", "onto", "opposite", "outside", "over",
    "past", "toward", "towards", "under", "underneath", "with", "within",
}  # fmt: skip
_WORDS_OF_PLACE = _DIRECTIONS | _NEARNESS | _PARTS | _PREPOSITIONS


def locate_phrases(sentence: str, phrases: Sequence[str]) -> list[Span]:
    """Where each phrase stands in the sentence, as whole words in either case, whatever white space is between them; a
    phrase given again is looked for behind the place before. `UserError` where one is not there."""
    end_of_last: dict[str, int] = {}
    spans = []
    for phrase in phrases:
        words = phrase.split()
        key = " ".join(words).casefold()
        spaced = r"\s+".join(map(re.escape, words))
        pattern = re.compile(rf"(?<!\w){spaced}(?!\w)", re.IGNORECASE)
        match = pattern.search(sentence, end_of_last.get(key, 0)) if words else None
        if not match:
            raise UserError(
                f"phrase {phrase!r:.80} is not in {sentence!r:.80}; phrases must be the sentence's own words"
            )
        end_of_last[key] = match.end()
        spans.append(match.span())
    return spans


def noun_phrases(sentence: str) -> list[tuple[str, Span]]:
    """Noun phrases of an English sentence, without overlap: determiner, adjectives and numbers, nouns.

    Participles belong to a phrase only behind its determiner: "a running dog", but "man / riding / horses". Words that
    say where a thing is end its phrase: "the circle / left of / the square".
    """
    words = list(_WORD.finditer(sentence))
    texts = [word[0] for word in words]
    tags = [tag for _, tag in english_tagger().tag(texts)]
    phrases = []
    for first, last in chunk_nouns(texts, tags):
        start, end = words[first].start(), words[last].end()
        phrases.append((sentence[start:end], (start, end)))
    return phrases


def chunk_nouns(words: Sequence[str], tags: Sequence[str]) -> list[tuple[int, int]]:
    """The first and last word of each noun phrase; tags: the words' parts of speech in the Penn treebank's names."""
    lowered = [word.lower() for word in words]
    letters = [_letter(tag) for tag in tags]
    _free_words_of_place(lowered, letters)
    chunks = []
    for match in _NOUN_PHRASE.finditer("".join(letters)):
        first, last = match.start(), match.end() - 1
        # "a boy jumps": a verb that was taken for a plural.
        if lowered[first] in _SINGULAR and tags[last] in _PLURALS and tags[last - 1] == _NOUN_WITHOUT_NUMBER:
            last -= 1
        chunks.append((first, last))
    return chunks


def _free_words_of_place(words: Sequence[str], letters: list[str]) -> None:
    """Take the words that say where something is out of the noun phrases, in `letters`; what stands before one and was
    taken for an adjective, "the square beneath", is the noun."""
    # From the end, because of several in a row ("upper left of") each depends on the one behind it.
    for number in range(len(words) - 1, -1, -1):
        if not _says_where(words, letters, number):
            if words[number] in _DIRECTIONS and letters[number] == "n":
                letters[number] = "a"
            continue
        letters[number] = "."
        before = "".join(letters[:number])
        if re.search("d[av]+$", before) and words[number - 1] not in _WORDS_OF_PLACE:
            letters[number - 1] = "n"


def _says_where(words: Sequence[str], letters: Sequence[str], number: int) -> bool:
    """Whether a word says where something is, rather than what it is; the letters of the words behind it are final."""
    word = words[number]
    following = letters[number + 1] if number + 1 < len(words) else "."
    before_noun = following in "na"
    preceding = letters[number - 1] if number else "."
    if word in _PREPOSITIONS:
        return preceding in "nav" or not before_noun
    if word in _DIRECTIONS | _NEARNESS:
        return following not in "nar"  # "the left most one"
    if word in _PARTS:
        next_word = words[number + 1] if number + 1 < len(words) else ""
        before_freed = following == "." and next_word in _DIRECTIONS
        return before_freed or (not before_noun and preceding not in "dnav")
    return False


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
