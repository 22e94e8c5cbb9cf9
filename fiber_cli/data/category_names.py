"""The words that names of categories stand for."""

import re

_INNERMOST_PARENTHESES = re.compile(r"\([^()]*\)")
_FIRST_TO_LAST_PARENTHESIS = re.compile(r"\(.*\)")


def clean_name(name: str, as_published: bool = False) -> str:
    """A category name as the weights know it: no parentheses, `_` as a space, double spaces single.

    The rest of the white space stays, as in training: `bow_(weapon)` is "bow ". `as_published` removes all between the
    first opening and the last closing parenthesis, words between two pairs with them.
    """
    if as_published:
        name = _FIRST_TO_LAST_PARENTHESIS.sub("", name)
    return _without_parentheses(name).replace("_", " ").replace("  ", " ")


def _without_parentheses(name: str) -> str:
    shorter = _INNERMOST_PARENTHESES.sub("", name)
    while shorter != name:
        name = shorter
        shorter = _INNERMOST_PARENTHESES.sub("", name)
    return name


def same_words(name: str, other: str) -> bool:
    """Whether two names are the same words once cleaned, whatever their case and white space."""
    return plain_name(name) == plain_name(other)


def plain_name(name: str) -> str:
    """The words that a name is compared by: cleaned, whatever their case and white space."""
    return words_apart(clean_name(name)).casefold()


def words_apart(name: str) -> str:
    """A name with its parentheses, `_` and all white space as single spaces between words."""
    return " ".join(name.replace("_", " ").split())
