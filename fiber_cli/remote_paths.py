"""Paths that are no files: addresses, and commands that write what is read."""

import re

#: In front of a command of the shell.
PIPE = "pipe:"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_remote(path: str) -> bool:
    """Whether a path is an address or a command, to which nothing is prefixed."""
    return path.startswith(PIPE) or _ADDRESS.match(path) is not None


def beside(pattern: str, name: str) -> str | None:
    """The address of a file of that name in the folder of shards at an address, with the same query. None where it has
    no single folder, or the query tells the shards apart, and for a command."""
    address, mark, query = pattern.partition("?")
    folder = address[: address.rfind("/") + 1]
    if pattern.startswith(PIPE) or folder.endswith("://") or any(sign in folder + query for sign in "*{"):
        return None
    return folder + name + mark + query
