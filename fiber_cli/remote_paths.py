"""Paths that are no files: addresses, and commands that write what is read."""

import re

#: In front of a command of the shell.
PIPE = "pipe:"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_remote(path: str) -> bool:
    """Whether a path is an address or a command, to which nothing is prefixed."""
    return path.startswith(PIPE) or _ADDRESS.match(path) is not None
