"""Texts for a line: names and texts of users, shown so that they cannot split it and move no terminal.

Characters that would end a line, move a cursor or turn the order of letters stand as Python's `repr` has them: `\\n`,
`\\x1b`, `\\u202e`, and `\\udcXX` for a byte XX of a file name that is not UTF-8 (`os.fsencode` gives it back).
"""

import re
from collections.abc import Iterable

#: Beside the control characters of ASCII, what shows nothing and what terminals obey, as a set of a pattern has it:
#: control characters past ASCII, marks of the direction of letters, separators of lines, marks of byte order and of
#: annotations, and halves of surrogate pairs, which are bytes of file names that are not UTF-8.
UNPRINTED = "\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff\\ufff9-\\ufffb\\ud800-\\udfff"
_IN_A_LINE = re.compile(f"[\\x00-\\x1f{UNPRINTED}]")
_IN_LINES = re.compile(f"[\\x00-\\x08\\x0b-\\x1f{UNPRINTED}]")


def says_nothing(text: str) -> bool:
    """Whether a text is of white space and of characters that do not show alone."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def one_line(text: object) -> str:
    """A text for a line: line ends, tabs and whatever else moves a terminal as escapes, all other characters as they
    are, so that what is already such a line stays as it is."""
    return _IN_A_LINE.sub(_escaped, str(text))


def printable_lines(text: str) -> str:
    """A text whose line ends and tabs are meant, the other characters as in `one_line`."""
    return _IN_LINES.sub(_escaped, text)


def cell(text: object) -> str:
    """A text for a table: as in `one_line`, its own backslashes doubled, so that the text can be told from it."""
    return one_line(str(text).replace("\\", "\\\\"))


def row(cells: Iterable[object]) -> str:
    """A row of a table, its cells separated by tabs."""
    return "\t".join(map(cell, cells))


def _escaped(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]
