"""What is printed reaches standard output whole, or the command fails."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fiber_cli.errors import UserError
from fiber_cli.outputs import is_full, write_problem


@contextmanager
def whole_output() -> Iterator[None]:
    """UserError where what is printed inside has no room, as in a file on a full disk, at the latest in the end."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or not is_full(error):
            raise
        _print_no_more()
        raise UserError(f"standard output: cannot be written ({write_problem(error)})") from error


def _print_no_more() -> None:
    """Or Python would try again at its end, with a message and an exit code of its own."""
    with suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
