"""metrics.jsonl: one record a line, each a mapping from names to numbers with a "step".

What is not of this form is not fiber's: it is told with its line, never thrown away. A run that goes on from an earlier
step drops the records past it, because it makes these steps again.
"""

import math
from pathlib import Path
from typing import Any

from fiber_cli.errors import UserError
from fiber_cli.outputs import replace
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import read_regular

Record = dict[str, Any]
#: Of every record that fiber writes.
_BEGINNING = b'{"step": '
#: Past it float64 does not hold whole numbers.
_MAX_STEP = 1 << 53


def read_records(file: Path) -> list[Record]:
    """The records of a metrics.jsonl; a last line cut by a kill is left out. Empty where there is no file. Raises
    UserError for a line of another form."""
    return [_parse(file, number, line) for number, line in enumerate(_whole_lines(file), 1)]


def drop_records(file: Path, start: int) -> None:
    """Leave the records up to a step as they stand in the file, and drop those past it and a last line cut by a kill.
    Raises UserError as `read_records`, and OSError, and then the file is as it was."""
    kept = []
    for number, line in enumerate(_whole_lines(file), 1):
        if _parse(file, number, line)["step"] <= start:
            kept.append(line + b"\n")
    content = b"".join(kept)
    if file.is_file() and file.read_bytes() != content:
        replace(file, content)


def _whole_lines(file: Path) -> list[bytes]:
    if not file.is_file():
        if file.exists() or file.is_symlink():
            raise UserError(f"{file} is not a file; move it away")
        return []
    try:
        content = read_regular(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; make it readable, or move it away") from error
    *lines, last = content.split(b"\n")
    # A whole file ends in a newline; what a kill cut is the beginning of a record.
    is_cut = last.startswith(_BEGINNING) or _BEGINNING.startswith(last)
    if not is_cut or last.endswith(b"}"):
        lines.append(last)
    return lines


def _parse(file: Path, number: int, line: bytes) -> Record:
    try:
        record = parse_json(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not _is_step(record.get("step")) or not all(map(_is_value, record.values())):
        raise UserError(
            f"{file}, line {number}: not a record of a run, which is a JSON object of numbers with a step; take the "
            "line out, or move the file away"
        )
    return record


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_STEP


def _is_value(value: Any) -> bool:
    """Whether it is a number that a float holds, or null, which stands for one that is not finite."""
    if value is None or isinstance(value, float):
        return True
    try:
        return isinstance(value, int) and math.isfinite(value)
    except OverflowError:
        return False
