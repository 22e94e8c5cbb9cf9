"""The values of a record as files of annotations have them, checked: numbers, also as text, flags, lists, texts, ids.

Everything here raises TypeError or ValueError that says which value is wrong and what it must be.
"""

import math
import re
from typing import Any

from fiber_cli.characters import says_nothing

_WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
#: Of float32, in which boxes are kept.
_LARGEST = 3e38
_FLAGS = {"false": False, "true": True}


def whole_number(value: Any, what: str) -> int:
    """A whole number, also as 3.0 or as text."""
    exact = _exact_integer(value)
    if exact is None:
        raise TypeError(f"{what} {value!r} is no whole number")
    return exact


def finite_number(value: Any, what: str) -> float:
    """A number that is not infinite, nor larger than float32 holds, also as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{what}: {value!r} is no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{what} is not finite")
    if abs(number) > _LARGEST:
        raise ValueError(f"{what} {number:g} is too large")
    return number


def flag(value: Any, what: str) -> bool:
    """0 or 1, false or true, also as text; nothing is 0."""
    if value is None:
        return False
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and _exact_integer(value) in (0, 1):
        return _exact_integer(value) == 1
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    raise ValueError(f"{what} must be 0 or 1, it is {value!r}")


def listed(value: Any, what: str) -> list[Any]:
    """A list; a text is none of its characters."""
    if not isinstance(value, list):
        raise TypeError(f"{what} must be a list, it is {value!r}")
    return value


def text(value: Any, what: str) -> str:
    """A text, which no half of a pair of surrogates is, and no NUL."""
    words = _string(value, what)
    damage = _NO_TEXT.search(words)
    if damage is not None:
        raise ValueError(f"{what} is damaged, it holds {ascii(damage[0])[1:-1]}")
    return words


def path_text(value: Any, what: str) -> str:
    """The name of a file, with more than white space in it; a byte XX of one that is not UTF-8 is `\\udcXX`, as the
    program writes it."""
    words = _string(value, what)
    if not words.strip():
        raise ValueError(f"{what} is empty")
    if "\0" in words:
        raise ValueError(f"{what} holds \\x00, as no name of a file does")
    return words


def _string(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be text, it is {value!r}")
    return value


def some_text(value: Any, what: str) -> str:
    """A text with more than white space in it."""
    if says_nothing(text(value, what)):
        raise ValueError(f"{what} is empty")
    return text(value, what)


def identifier(value: Any, what: str = "the id") -> int | str:
    """An id: a whole number, which may be written as text, or a text; 7, 7.0 and "7" are one id, "007" is another."""
    exact = _exact_integer(value)
    if isinstance(value, str):
        if exact is not None and str(exact) == value:
            return exact
        return some_text(value, what)
    if exact is None:
        raise TypeError(f"{what} {value!r} is neither a whole number nor text")
    return exact


def _exact_integer(value: Any) -> int | None:
    """The whole number that a value is or says, None where it is another thing."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        match = _WHOLE.fullmatch(value.strip())
        return int(match[1]) if match else None
    if isinstance(value, int):
        return value
    return int(value) if value.is_integer() else None
