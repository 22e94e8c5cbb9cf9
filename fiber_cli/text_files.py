"""Text as files have it: what its bytes are encoded in, where its lines end, and JSON."""

import codecs
import json
import re
from pathlib import Path
from typing import Any

from fiber_cli.characters import UNPRINTED
from fiber_cli.errors import UserError
from fiber_cli.regular_files import read_regular

#: Byte-order marks and what they are of, the longer ones first: UTF-32's begins as UTF-16's does.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
#: A byte-order mark as a character.
MARK = "\ufeff"
_LINE_END = re.compile("\r\n|\r|\n")
_UNPRINTED = re.compile(f"[{UNPRINTED}]")


class NotText(ValueError):
    """Bytes that are no text, with the line and the byte, from 1."""


def decode_text(content: bytes) -> str:
    """A text file's content: UTF-8, with or without a byte-order mark, or what its mark tells, UTF-16 or UTF-32. Raises
    `NotText`."""
    encoding = _marked_encoding(content) or "utf-8"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise NotText(_not_text(error, content, encoding)) from None


def utf8(content: bytes) -> bytes:
    """A text file's content as UTF-8 without a byte-order mark, which is what most are. Raises `NotText` where a mark
    tells of another encoding that it is not in; what has no mark is not looked at."""
    encoding = _marked_encoding(content)
    if encoding is None:
        return content
    if encoding == "utf-8-sig":
        return content[len(codecs.BOM_UTF8) :]
    return decode_text(content).encode()


def has_mark(content: bytes) -> bool:
    """Whether a file that begins with these bytes, at least 4 where it has so many, has a byte-order mark."""
    return _marked_encoding(content) is not None


def _marked_encoding(content: bytes) -> str | None:
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return encoding
    return None


def _not_text(error: UnicodeDecodeError, content: bytes, encoding: str) -> str:
    if encoding not in ("utf-8", "utf-8-sig"):
        name = encoding.upper()
        return f"not {name}, as its mark says, at byte {error.start + 1} ({error.reason}); save it as UTF-8"
    before = error.object[: error.start]  # without the mark, which "utf-8-sig" takes away
    line = len(_LINE_END.findall(before.decode("utf-8", "replace"))) + 1
    in_line = f" in line {line}," if len(error.object.splitlines()) > 1 else ""
    byte = error.start + 1 + len(content) - len(error.object)
    wrong = f"not UTF-8{in_line} at byte {byte} (0x{error.object[error.start]:02x})"
    return f"{wrong}; save it as UTF-8, or as UTF-16 with its byte-order mark"


def read_text(path: str | Path) -> str:
    """A file's text, see `decode_text`; UserError that says how to mend what is none. Raises OSError."""
    try:
        return decode_text(read_regular(path))
    except NotText as error:
        raise UserError(f"{path}: {error}") from None


def lines_of(text: str) -> list[str]:
    """The lines of a text, whichever system's ends they have, without the marks that files put together leave at the
    beginning of a line. Separators that only some programs take for line ends are characters of the line."""
    lines = [line.removeprefix(MARK) for line in _LINE_END.split(text)]
    return lines[:-1] if lines and not lines[-1] else lines


def dump_json(value: Any, indent: int | None = None, *, encoding: str = "utf-8") -> str:
    """JSON that any file and any terminal can hold: as text, but for what `encoding` lacks and what moves a terminal,
    as control characters and the bytes of file names that are not UTF-8 do. These stand as JSON's `\\uXXXX`, a byte XX
    as Python reads it, `\\udcXX`; `os.fsencode` gives the name back."""
    text = _UNPRINTED.sub(_escaped, json.dumps(value, indent=indent, ensure_ascii=False))
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
