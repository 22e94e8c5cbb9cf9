"""A file of a run that grows by whole records, each written at once or not at all."""

import errno
import os
from pathlib import Path
from typing import Self

from fiber_cli.errors import UserError


class AppendedFile:
    """A file that is appended to; `write` and `flush` are those of a binary stream.

    Nothing stays in memory, so a record is on its way to the disk when `write` returns, and one that finds no room is
    taken back.
    """

    def __init__(self, file: Path):
        self.file = file
        self._is_new = not file.exists()
        self._stream = file.open("ab", buffering=0)

    def write(self, record: bytes) -> int:
        """Append a record. Raises OSError, then the file is as it was; UserError where the file is no longer there."""
        self.check()
        end = os.fstat(self._stream.fileno()).st_size
        try:
            written = self._stream.write(record)
            if written < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file))
        except OSError as error:
            self._stream.truncate(end)
            if error.filename is None:
                error.filename = str(self.file)
            raise
        return written

    def check(self) -> None:
        """Raises UserError where the file has been removed, moved or replaced since it was opened."""
        if not self._is_there():
            raise UserError(
                f"{self.file} was removed, moved or replaced while the run was writing it, or the folder that holds it "
                "was; what has been learned since the last checkpoint is lost. Put the folder back and continue with "
                "--resume"
            )

    def _is_there(self) -> bool:
        ours = os.fstat(self._stream.fileno())
        try:
            there = self.file.stat()
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Close it; one that is new and got no record is removed."""
        is_empty = os.fstat(self._stream.fileno()).st_size == 0
        goes = self._is_new and is_empty and self._is_there()
        self._stream.close()
        if goes:
            self.file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
