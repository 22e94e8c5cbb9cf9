"""words.txt of a checkpoint: the words of all texts that it and what it began with were trained on, sorted, one a line.

Where they are not known, because sources cannot tell them or the checkpoint is from before, there is no such file.
"""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from fiber_cli.data.words import LONGEST, MOST, words_of
from fiber_cli.errors import UserError
from fiber_cli.regular_files import check_regular

WORDS_FILE = "words.txt"
#: UTF-8 has four bytes for a character at most; a larger file is something else.
MAX_BYTES = MOST * (4 * LONGEST + 1)


def write_words(checkpoint: Path, words: Collection[str]) -> None:
    """Write WORDS_FILE. Raises OSError."""
    lines = [f"{word}\n" for word in sorted(words)]
    (checkpoint / WORDS_FILE).write_text("".join(lines), encoding="utf-8", newline="\n")


def read_words(checkpoint: Path) -> frozenset[str] | None:
    """The words of a checkpoint; None where they are not known. Raises UserError for a file that cannot be read."""
    file = checkpoint / WORDS_FILE
    if not os.path.lexists(file):
        return None
    try:
        check_regular(file)
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES)
        return frozenset(content.decode("utf-8").split("\n")) - {""}
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = "is damaged (not UTF-8)"
    raise UserError(f"{file} {problem}; copy the whole checkpoint again, or delete it: then no word is called unseen")


def unseen_words(checkpoint: Path, texts: Iterable[str]) -> list[str]:
    """The words of the texts that no text of a checkpoint's training had, each once, in the order of the texts; none
    where the words of its training are not known. Raises UserError as `read_words`."""
    return unseen_of(read_words(checkpoint), texts)


def unseen_of(known: frozenset[str] | None, texts: Iterable[str]) -> list[str]:
    """The same of the words of a training, None where they are not known."""
    if known is None:
        return []
    unseen: dict[str, None] = {}
    for text in texts:
        for word in words_of(text):
            if word not in known:
                unseen[word] = None
    return list(unseen)
