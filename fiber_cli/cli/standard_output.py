"""What is printed reaches standard output whole, or the command fails."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fiber_cli.errors import UserError
from fiber_cli.outputs import is_full, write_problem
from fiber_cli.printing import print_no_more


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
        print_no_more()
        raise UserError(f"standard output: cannot be written ({write_problem(error)})") from error
