"""Files that fiber writes: whole or not at all, and over nothing that it did not write itself.

The rule: a file that is there is replaced where fiber wrote it and nothing has changed it since, any other only where
that is asked for (`--force`), and one that the same command reads never. A file is written aside and renamed at the
end, so that a failure leaves what was there; a link is replaced itself, and what it leads to stays as it is.

What fiber wrote stands in the file LEDGER of each folder, in the form of `sha256sum`.
"""

import errno
import hashlib
import itertools
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fiber_cli.errors import UserError

LEDGER = ".fiber-outputs"
#: Reasons of a failed write that are the file system's, not the program's.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: The same in the words of libraries whose errors carry no number.
_FULL_IN_WORDS = ("no space left", "os error 28", "disk quota exceeded", "pytorchstreamwriter failed")
_NUMBERS = itertools.count()

#: Device and inode of a file.
_Identity = tuple[int, int]


class Outputs:
    """The outputs of one command. force: whether they may replace files that fiber did not write; inputs: the files
    that the command reads, none of which is ever replaced."""

    def __init__(self, *, force: bool = False, inputs: Iterable[Path] = ()):
        self.force = force
        self._inputs = list(inputs)
        self._identities: set[_Identity] | None = None
        self._ledgers: dict[Path, _Ledger] = {}

    def check(self, file: Path) -> None:
        """Raises UserError where `file` must not or cannot be written; asked before anything costly is done."""
        if file.is_dir():
            raise UserError(f"{file}: is a folder; name a file in it")
        if _is_stream(file):
            return
        if os.path.lexists(file):
            self._check_replaceable(file)
        folder = _nearest_folder(file)
        if not folder.is_dir():
            raise UserError(f"{file}: {folder} is not a folder; name another place")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{file}: {folder} cannot be written into; name another place")

    def _check_replaceable(self, file: Path) -> None:
        if self._is_input(file):
            raise UserError(f"{file}: is read by this command and would be overwritten; name another file")
        if not self.force and not self._ledger(file.parent).wrote(file):
            raise UserError(
                f"{file}: is there already, and was not written by fiber or has been changed since; name another file, "
                "or replace it with --force"
            )

    def _is_input(self, file: Path) -> bool:
        if self._identities is None:
            self._identities = {identity for identity in map(_identity, self._inputs) if identity is not None}
        return _identity(file) in self._identities

    def wrote(self, file: Path) -> bool:
        """Whether fiber wrote a file and nothing has changed it since."""
        return self._ledger(file.parent).wrote(file)

    def _ledger(self, folder: Path) -> "_Ledger":
        if folder not in self._ledgers:
            self._ledgers[folder] = _Ledger(folder)
        return self._ledgers[folder]

    def write(self, file: Path, content: str | bytes) -> None:
        """Write a whole file, text as UTF-8. Raises UserError, see `check` and `writing`."""
        with self.writing(file) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)

    @contextmanager
    def writing(self, file: Path) -> Iterator[Path]:
        """Gives a temporary file with the ending of `file`, which takes its place when the block ends; folders that are
        missing are made. Where the block or the end of it fails the temporary file is removed and what was there stays;
        a failure of the file system is a UserError."""
        self.check(file)
        if _is_stream(file):
            with _explained(file):
                yield file
            return
        made = _missing_folders(file.parent)
        temporary = file.with_name(f".fiber-{os.getpid()}-{next(_NUMBERS)}.tmp{file.suffix}")
        try:
            with _explained(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                yield temporary
                self._put(temporary, file)
        except BaseException:
            _remove(temporary, made)
            raise

    def _put(self, temporary: Path, file: Path) -> None:
        """The finished temporary file in its place."""
        sync(temporary)
        if file.is_file() and not file.is_symlink():
            shutil.copymode(file, temporary)
        # Before the rename: a kill between the two leaves a line too many, not a file that nobody wrote.
        self._ledger(file.parent).add(file.name, _digest(temporary))
        temporary.replace(file)
        sync(file.parent)


class _Ledger:
    """The digests of the files that fiber has written into a folder, by name."""

    def __init__(self, folder: Path):
        self.file = folder / LEDGER
        self._digests: dict[bytes, set[str]] = {}
        try:
            content = self.file.read_bytes()
        except OSError:
            return  # nothing written yet, or nothing that can be known
        for line in content.splitlines():
            digest, separator, name = line.partition(b"  ")
            if separator:
                self._digests.setdefault(name, set()).add(digest.decode("ascii", "replace"))

    def wrote(self, file: Path) -> bool:
        """Whether the content of a file is what fiber wrote under its name; never of a link."""
        digests = self._digests.get(_escaped(file.name))
        if not digests or file.is_symlink() or not file.is_file():
            return False
        return _digest(file) in digests

    def add(self, name: str, digest: str) -> None:
        """Keep that fiber writes a file with this content. Raises OSError, then nothing is kept."""
        digests = self._digests.setdefault(_escaped(name), set())
        if digest in digests:
            return
        _append(self.file, digest.encode() + b"  " + _escaped(name) + b"\n")
        digests.add(digest)


def _escaped(name: str) -> bytes:
    """A name on a line of its own."""
    return os.fsencode(name).replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def _append(file: Path, line: bytes) -> None:
    """The whole line at the end of a file, or none of it."""
    with file.open("ab", buffering=0) as stream:
        end = os.fstat(stream.fileno()).st_size
        try:
            written = stream.write(line)
            os.fsync(stream.fileno())
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        except OSError:
            stream.truncate(end)
            if end == 0:
                file.unlink()
            raise


def _digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _identity(file: Path) -> _Identity | None:
    """Of the file that a path leads to; None where there is none."""
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _is_stream(file: Path) -> bool:
    """Whether a path leads to a pipe or a device, such as /dev/stdout, which is written as it is."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def _nearest_folder(file: Path) -> Path:
    """The first of a file's parents that is there."""
    folder = file.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _missing_folders(folder: Path) -> list[Path]:
    """A folder and its parents as far as they are not there, the innermost first."""
    missing = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    return missing


def _remove(temporary: Path, folders: list[Path]) -> None:
    """What a failed write has begun; folders only where they are empty."""
    temporary.unlink(missing_ok=True)
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """A failure of the file system inside becomes a UserError that names `file`."""
    try:
        yield
    except Exception as error:
        problem = write_problem(error)
        if problem is None:
            raise
        raise UserError(f"{file}: cannot be written ({problem}); what was there is untouched") from error


def write_problem(error: BaseException) -> str | None:
    """Why a write failed, in words, where the file system is the reason of an exception or of one that caused it; None
    where it is not. Libraries raise RuntimeError or a bare Exception where the disk is full."""
    if isinstance(error, UserError):
        return None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return f"{os.strerror(cause.errno)}: free some space"
        words = str(cause).lower()
        if any(phrase in words for phrase in _FULL_IN_WORDS):
            return f"{os.strerror(errno.ENOSPC)}: free some space"
        cause = cause.__cause__ or cause.__context__
    return error.strerror or str(error) if isinstance(error, OSError) else None


def replace(file: Path, content: bytes) -> None:
    """Write a file that is fiber's own by its name, such as `latest`, so that a kill or a crash leaves the old or the
    new one. Raises OSError, then the old one is there as it was."""
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        temporary.write_bytes(content)
        sync(temporary)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(file.parent)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's list of files, on the disk."""
    is_folder = path.is_dir()
    # Windows syncs only files that are open for writing, and opens no folders.
    for_writing = os.name == "nt" and not is_folder
    try:
        handle = os.open(path, os.O_RDWR if for_writing else os.O_RDONLY)
    except PermissionError:
        if is_folder:
            return
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
