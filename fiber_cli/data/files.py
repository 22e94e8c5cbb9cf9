"""Reading what users give: files of a known form, and errors that say what is wrong where."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fiber_cli.data.source import BadSample
from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import read_regular
from fiber_cli.text_files import NotText, utf8


def read_bytes(path: str | Path, wanted: str) -> bytes:
    """The content of a file; `UserError`, naming what is wanted, where it is missing."""
    try:
        return read_regular(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the path of {wanted}") from None
    except ValueError as error:  # a NUL in the path
        raise UserError(f"{path}: {error}; give the path of {wanted}") from None


def read_json(
    path: str | Path,
    wanted: str,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
    *,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The content of a JSON file; `UserError`, naming what is wanted, where it is missing or is not JSON."""
    return json_of(path, read_bytes(path, wanted), wanted, object_hook, object_pairs_hook=object_pairs_hook)


def json_of(
    path: str | Path,
    content: bytes,
    wanted: str,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
    *,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The same of what was read of a path already."""
    try:
        return parse_json(content, object_hook=object_hook, object_pairs_hook=object_pairs_hook)
    except NotText as error:
        raise UserError(f"{path}: {error}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); fetch {wanted} again") from None


def read_lines(path: str | Path, wanted: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a text file that are not empty, in UTF-8, with their numbers from 1; `UserError` as of `read_bytes`,
    and for a file that is not what its byte-order mark says."""
    try:
        content = utf8(read_bytes(path, wanted))
    except NotText as error:
        raise UserError(f"{path}: {error}") from None
    # Texts in JSON may hold what else counts as the end of a line, which bytes do not know.
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            yield number, line


@contextmanager
def expecting(where: str | Path, what: str, form: str = "", *, see: Callable[[], str] | None = None) -> Iterator[None]:
    """Inside, content of `where` that is not what was expected raises `UserError`: not `what`, see `see()`, wanted is
    `form`. see: asked when the error occurs."""
    try:
        yield
    except UserError:
        raise
    except (*WRONG_CONTENT, BadSample) as error:
        message = f"{where}: not {what}"
        if see is not None:
            message += f", see {see()}"
        message += f" ({type(error).__name__}: {error})"
        if form:
            message += f"; wanted is {form}"
        raise UserError(message) from None
