"""The lists of a large JSON file, read record by record: the values of all records at once take ten times the file.

The file is gone through once, which finds out whether all of it is JSON and where its lists begin, and again for each
list that is read. Records are parsed by Python's own parser, so that they are what they are in a small file.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fiber_cli.data.files import read_json
from fiber_cli.errors import UserError
from fiber_cli.regular_files import check_regular
from fiber_cli.text_files import has_mark

#: Files from so many bytes are read record by record, in pieces of so many.
LARGE, PIECE = 64 << 20, 8 << 20
_SPACE = " \t\n\r"
_DECODER = json.JSONDecoder()


class ListInFile:
    """A list of a JSON file, which is read each time that it is gone through."""

    def __init__(self, path: str | Path, offset: int, count: int):
        self.path, self.offset, self.count = path, offset, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        try:
            with _Cursor(self.path, self.offset) as cursor:
                yield from cursor.elements()
        except _OtherForm:
            raise UserError(f"{self.path}: has changed while it was read; start again") from None


def read_json_lists(path: str | Path, wanted: str) -> Any:
    """The content of a JSON file, with `ListInFile`s in place of the lists of the object that a large file holds.
    `UserError` as of `read_json`."""
    if not _is_large(path):
        return read_json(path, wanted)
    try:
        with _Cursor(path) as cursor:
            return cursor.content()
    except _OtherForm:
        # Not JSON, or of a kind that is seldom large: the whole parser tells which.
        return read_json(path, wanted)


def _is_large(path: str | Path) -> bool:
    try:
        check_regular(path)
        with open(path, "rb") as file:
            return Path(path).stat().st_size >= LARGE and not has_mark(file.read(4))
    except (OSError, ValueError):
        return False  # told where it is read


class _OtherForm(Exception):
    """Not an object of JSON that is read so."""


class _Cursor:
    """A place in the text of a file, of which a piece is in memory. offset: of its first byte."""

    def __init__(self, path: str | Path, offset: int = 0):
        self.path = path
        self.file = open(path, "rb")  # noqa: SIM115
        self.file.seek(offset)
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.before = offset  # bytes in front of `text`
        self.text, self.at = "", 0
        self.has_ended = False

    def __enter__(self) -> "_Cursor":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def content(self) -> dict[str, Any]:
        """The object that the file holds. Raises `_OtherForm`."""
        content: dict[str, Any] = {}
        self._take("{")
        if self._next() == "}":
            self._take("}")
        else:
            self._members(content)
        if self._next():
            raise _OtherForm
        return content

    def _members(self, content: dict[str, Any]) -> None:
        while True:
            key = self.value()
            if not isinstance(key, str) or key in content:
                raise _OtherForm
            self._take(":")
            content[key] = self._list() if self._next() == "[" else self.value()
            if self._take(",}") == "}":
                return

    def _list(self) -> ListInFile:
        offset = self.before + len(self.text[: self.at].encode())
        count = sum(1 for _ in self.elements())
        return ListInFile(self.path, offset, count)

    def elements(self) -> Iterator[Any]:
        """The values of the list that begins here. Raises `_OtherForm`."""
        self._take("[")
        if self._next() == "]":
            self._take("]")
            return
        while True:
            yield self.value()
            if self._take(",]") == "]":
                return

    def value(self) -> Any:
        """The value that begins here. Raises `_OtherForm`."""
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except (ValueError, RecursionError):
                end = len(self.text)
            # A number may go on in the next piece: what is behind a value tells that it is whole.
            if end < len(self.text) and self.text[end] in ",:]}" + _SPACE:
                self.at = end
                return value
            if not self._read():
                raise _OtherForm

    def _take(self, characters: str) -> str:
        """The next character, which must be one of these."""
        taken = self._next()
        if not taken or taken not in characters:
            raise _OtherForm
        self.at += 1
        return taken

    def _next(self) -> str:
        """The next character that is no space, which stays; "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._read():
                return ""

    def _read(self) -> bool:
        """Whether there was more of the file, which is in memory now; what lies behind is not any more."""
        if self.has_ended:
            return False
        rest = self.text[self.at :]
        # As much again where a value is longer than a piece, so that it is not parsed a thousand times.
        content = self.file.read(max(PIECE, len(rest)))
        self.has_ended = not content
        try:
            more = self.decoder.decode(content, final=not content)
        except UnicodeDecodeError:
            raise _OtherForm from None
        self.before += len(self.text[: self.at].encode())
        self.text, self.at = rest + more, 0
        return bool(content)
