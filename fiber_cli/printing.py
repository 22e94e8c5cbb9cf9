"""Standard output and standard error: everything that the program says goes through here, see `characters`."""

import io
import os
import sys
import warnings
from contextlib import suppress
from typing import Any, TextIO

from fiber_cli.characters import one_line, printable_lines
from fiber_cli.text_files import dump_json

#: Characters of an error's own words on a line.
_SHOWN = 300


def say(text: object) -> None:
    """A line on standard error."""
    print(one_line(text), file=sys.stderr, flush=True)


def say_lines(text: object) -> None:
    """Lines on standard error, whose ends are meant."""
    print(printable_lines(str(text)), file=sys.stderr, flush=True)


def show(text: str, *, end: str = "\n", flush: bool = False) -> None:
    """Lines on standard output, whose ends and tabs are meant: the names in them are escaped before, by `one_line` or
    in a `row`."""
    print(printable_lines(text), end=end, flush=flush)


def show_json(value: Any) -> None:
    """A value as JSON on standard output."""
    print(dump_json(value, indent=2, encoding=encoding_of(sys.stdout)))


def shorten_warnings() -> None:
    """Warnings are one line, without the place in the code that gives them."""
    warnings.formatwarning = _warning_line


def warnings_are_short() -> bool:
    """Whether they are."""
    return warnings.formatwarning is _warning_line


def _warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"warning: {one_line(first_line(message)) or category.__name__}\n"


def first_line(error: object) -> str:
    """What an error says, in one line; nothing of one that cannot say what it is."""
    try:
        words = str(error)
    except Exception:
        return ""
    return next(iter(words.strip().splitlines()), "")[:_SHOWN]


def encoding_of(stream: TextIO) -> str:
    """What a stream's text is encoded in; one of text alone takes everything that UTF-8 does."""
    encoding: str | None = stream.encoding
    return encoding or "utf-8"


def take_any_text() -> None:
    """Let standard output and error take every text, with escapes for what the terminal's encoding lacks, and be there:
    closed ones lead nowhere, so that no file that is opened takes their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    standard: list[TextIO | None] = [sys.stdout, sys.stderr]
    if standard[0] is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if standard[1] is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _buffered(sys.stdout)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_no_more() -> None:
    """Let standard output lead nowhere: what it could not take Python would try again at its end, with a message and an
    exit code of its own."""
    with suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _buffered(stream: TextIO) -> TextIO:
    """A stream whose writes are whole or fail: without buffer, as under PYTHONUNBUFFERED, what a full disk has no room
    for is lost without a word. Lines still come at once."""
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(stream.buffer, io.RawIOBase):
        return stream
    return io.TextIOWrapper(io.BufferedWriter(stream.buffer), stream.encoding, line_buffering=True)
