"""Files that are read whole, by name: one that is a pipe keeps its reader waiting, and a device may have no end."""

import errno
import os
import stat
from pathlib import Path

#: What a shell hands over as `<(…)` or by `|` has somebody who writes into it.
_OF_THE_SHELL = ("/dev/fd/", "/dev/stdin", "/proc/")


def check_regular(path: str | Path) -> None:
    """OSError for what is there and is neither a file nor a folder, but for what a shell hands over."""
    if str(path).startswith(_OF_THE_SHELL):
        return
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # told where it is opened
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))


def read_regular(path: str | Path) -> bytes:
    """The content of a file. OSError as of `check_regular` too."""
    check_regular(path)
    return Path(path).read_bytes()
