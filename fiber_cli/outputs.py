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
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fiber_cli.errors import UserError
from fiber_cli.regular_files import read_regular

#: What fiber writes for itself into folders of users: the ledger of outputs, a folder's lock and who holds it, and the
#: digests of a checkpoint.
LEDGER, LOCK, OWNER, DIGESTS = ".fiber-outputs", ".fiber-lock", ".fiber-owner.json", "SHA256SUMS"
#: Reasons of a failed write that are the file system's, not the program's, and what mends them.
_FULL = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "`ulimit -f` says how large a file may be",
}
#: The same in the words of libraries whose errors carry no number.
_FULL_IN_WORDS = {
    "no space left": errno.ENOSPC,
    "os error 28": errno.ENOSPC,
    "pytorchstreamwriter failed": errno.ENOSPC,
    "disk quota exceeded": errno.EDQUOT,
    "file too large": errno.EFBIG,
}
_NUMBERS = itertools.count()
#: Where a process has its open files on Linux and on macOS; `/dev/stdout` leads there.
_DESCRIPTORS = ("/dev/fd", "/proc/self/fd", f"/proc/{os.getpid()}/fd")
_MOST_LINKS = 40

_BOOKKEEPING = frozenset((LEDGER, LOCK, OWNER, DIGESTS))
#: The files that tell a checkpoint, and how deep its folders are.
_OF_CHECKPOINTS = (DIGESTS, "model.safetensors")
_DEEPEST = 3
#: Device and inode of a file.
_Identity = tuple[int, int]


class Pending:
    """An output that is being written: under the name `temporary`, which has its ending, until `Outputs.publish` gives
    it its own. Of a pipe or a device `temporary` is that itself."""

    def __init__(self, file: Path, temporary: Path | None = None):
        self.file = file
        self.is_stream = is_stream(file)
        #: The folders that were made for it, the innermost first.
        self.made = [] if self.is_stream else missing_folders(file.parent)
        self.temporary = file if self.is_stream else temporary or temporary_name(file)

    def drop(self) -> None:
        """Take away what was written, where it has not been published."""
        if not self.is_stream:
            self.temporary.unlink(missing_ok=True)
            remove_empty(self.made)


class Outputs:
    """The outputs of one command. force: whether they may replace files that fiber did not write; inputs: the files
    that the command reads, none of which is ever replaced, looked at once there is a file to replace."""

    def __init__(self, *, force: bool = False, inputs: Iterable[Path] = ()):
        self.force = force
        self._inputs = inputs
        self._identities: set[_Identity] | None = None
        self._ledgers: dict[Path, _Ledger] = {}
        self._reserved: dict[str, Path] = {}
        #: Files that may be replaced, as they were when that was found out.
        self._replaceable: dict[Path, tuple[int, ...]] = {}
        self._folders: set[Path] = set()
        self._outside_checkpoints: set[Path] = set()

    def reserve(self, file: Path, *, own: bool = False) -> None:
        """`check`, and a UserError where another output of the command is the same file, on some system at least."""
        self.check(file, own=own)
        if is_stream(file):
            return
        name = unicodedata.normalize("NFC", file.name).casefold()
        place = os.path.join(os.path.realpath(file.parent), name)
        if place in self._reserved:
            raise UserError(
                f"{file}: two outputs of this command would be the file {self._reserved[place]}; name another"
            )
        self._reserved[place] = file

    def check(self, file: Path, *, own: bool = False) -> None:
        """Raises UserError where `file` must not or cannot be written; asked before anything costly is done. own:
        whether what is there is known to be fiber's, whatever the ledger says."""
        if os.path.isdir(file):
            raise UserError(f"{file}: is a folder; name a file in it")
        if is_stream(file):
            return
        if file.name in _BOOKKEEPING and not own:
            raise UserError(f"{file}: is the name of a file that fiber keeps for itself; name another")
        if os.path.lexists(file):
            self._check_replaceable(file, own)
        self._check_folder(file)

    def _check_folder(self, file: Path) -> None:
        if file.parent not in self._outside_checkpoints:
            checkpoint = _checkpoint_around(file)
            if checkpoint is not None:
                raise UserError(f"{file}: lies in the checkpoint {checkpoint}, which holds its own files only")
            self._outside_checkpoints.add(file.parent)
        folder = _nearest_folder(file)
        if not folder.is_dir():
            raise UserError(f"{file}: {folder} is not a folder; name another place")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{file}: {folder} cannot be written into; name another place")
        ledger = file.parent / LEDGER
        if os.path.lexists(ledger) and (ledger.is_symlink() or not ledger.is_file() or not os.access(ledger, os.W_OK)):
            raise UserError(f"{file}: {ledger}, where fiber keeps what it wrote, cannot be written; remove it")

    def _check_replaceable(self, file: Path, own: bool) -> None:
        stamp = _stamp(file)
        if self._replaceable.get(file) == stamp:
            return
        if self.is_input(file):
            raise UserError(f"{file}: is read by this command and would be overwritten; name another file")
        if not own and not self.force and not self.wrote(file):
            raise UserError(
                f"{file}: is there already, and was not written by fiber or has been changed since; name another file, "
                "or replace it with --force"
            )
        self._replaceable[file] = stamp

    def is_input(self, file: Path) -> bool:
        """Whether a path leads to a file that the command reads."""
        if self._identities is None:
            self._identities = {identity for identity in map(_identity, self._inputs) if identity is not None}
        return _identity(file) in self._identities

    def wrote(self, file: Path) -> bool:
        """Whether a file is as fiber wrote it."""
        return self._ledger(file.parent).wrote(file)

    def _ledger(self, folder: Path) -> "_Ledger":
        if folder not in self._ledgers:
            self._ledgers[folder] = _Ledger(folder)
        return self._ledgers[folder]

    def write(self, file: Path, content: str | bytes, *, own: bool = False, kept: bool = True) -> None:
        """Write a whole file, text as UTF-8; one that has this content already stays. own: see `check`; kept: see
        `publish`. Raises UserError, see `check` and `writing`."""
        encoded = content.encode() if isinstance(content, str) else content
        own = own or _holds(file, encoded)
        with self.writing(file, own=own, kept=kept) as temporary:
            temporary.write_bytes(encoded)

    @contextmanager
    def writing(self, file: Path, *, own: bool = False, kept: bool = True) -> Iterator[Path]:
        """Gives a temporary file with the ending of `file`, which takes its place when the block ends; folders that are
        missing are made. Where the block or the end of it fails the temporary file is removed and what was there stays;
        a failure of the file system is a UserError. own: see `check`; kept: see `publish`."""
        pending = self.begin(file, own=own)
        try:
            with explained(file):
                yield pending.temporary
            self.publish(pending, kept=kept)
        except BaseException:
            pending.drop()
            raise

    def begin(self, file: Path, *, own: bool = False, temporary: Path | None = None) -> Pending:
        """What `writing` does at its beginning, for files that are written piece by piece; ended by `publish`, or by
        `Pending.drop`. own: see `check`; temporary: a name in the same folder, for what is to outlast a kill."""
        self.check(file, own=own)
        pending = Pending(file, temporary)
        if pending.is_stream:
            return pending
        if file.parent in self._folders and pending.made:
            raise UserError(f"{file}: {file.parent} was removed while fiber wrote into it")
        try:
            with explained(file):
                file.parent.mkdir(parents=True, exist_ok=True)
        except BaseException:
            pending.drop()
            raise
        self._folders.add(file.parent)
        return pending

    def publish(self, *pending: Pending, kept: bool = True) -> None:
        """Finished files that belong together in their places, the last one last; where that fails before the first is
        in its place all stay as they were. While the others are exchanged an earlier one of the last is away: where it
        is there, all are of one writing. kept: whether the ledger has them; False for files that tell by themselves
        that they are fiber's. Raises UserError."""
        files = [each for each in pending if not each.is_stream]
        for each in files:
            with explained(each.file):
                self._finish(each, kept=kept)
        for each in files:
            # Again: what was there at the beginning may be another file by now.
            if kept and os.path.lexists(each.file):
                self._check_replaceable(each.file, own=False)
        if len(files) > 1:
            with explained(files[-1].file):
                files[-1].file.unlink(missing_ok=True)
        for each in files:
            with explained(each.file):
                each.temporary.replace(each.file)
            self._replaceable.pop(each.file, None)

    def _finish(self, pending: Pending, *, kept: bool) -> None:
        sync(pending.temporary)
        if pending.file.is_file() and not pending.file.is_symlink():
            shutil.copymode(pending.file, pending.temporary)
        if kept:
            # Before the rename: a kill between the two leaves a line too many, not a file that nobody wrote.
            self._ledger(pending.file.parent).add(pending.file.name, sha256_of(pending.temporary))

    @contextmanager
    def staging(self, folder: Path) -> Iterator[Path]:
        """Gives a temporary folder in `folder`, which is removed in the end with all that is left in it, and with the
        folders that were made for it where they are empty."""
        temporary = temporary_name(folder / "folder")
        made = missing_folders(folder)
        try:
            with explained(folder):
                temporary.mkdir(parents=True)
                yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            remove_empty(made)

    def keep(self, folder: Path, files: Iterable[Path], at: Path) -> None:
        """Have the ledger of `folder` know files that will lie at the same places below `folder` as they now do below
        `at`. Raises UserError."""
        for file in files:
            name = file.relative_to(at).as_posix()
            with explained(folder / name):
                self._ledger(folder).add(name, sha256_of(file))

    def foreign(self, folder: Path) -> Path | None:
        """A file below a folder that the folder's own ledger does not have as it is; None where there is none."""
        ledger = self._ledger(folder)
        for file in sorted(folder.rglob("*")):
            is_plain_folder = file.is_dir() and not file.is_symlink()
            if not is_plain_folder and file != ledger.file and not ledger.wrote(file):
                return file
        return None


class _Ledger:
    """The digests of the files that fiber has written into a folder, by their names below it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.file = folder / LEDGER
        self._digests: dict[bytes, set[str]] = {}
        self._size = 0
        self._read()

    def _read(self) -> None:
        try:
            content = read_regular(self.file)
        except OSError:
            return  # nothing written yet, or nothing that can be known
        self._size = len(content)
        for line in content.splitlines():
            digest, separator, name = line.partition(b"  ")
            if separator:
                self._digests.setdefault(name, set()).add(digest.decode("ascii", "replace"))

    def wrote(self, file: Path) -> bool:
        """Whether the content of a file is what fiber wrote under its name; never of a link."""
        if file.is_symlink() or not file.is_file():
            return False
        name = _escaped(file.relative_to(self.folder).as_posix())
        is_outdated = self._size != _size(self.file)  # another process has written
        if name not in self._digests and not is_outdated:
            return False
        # Before the ledger is read, which has the line of a file before the file is there.
        digest = sha256_of(file)
        if digest not in self._digests.get(name, ()) and self._size != _size(self.file):
            self._read()
        return digest in self._digests.get(name, ())

    def add(self, name: str, digest: str) -> None:
        """Keep that fiber writes a file with this content. Raises OSError, then nothing is kept."""
        digests = self._digests.setdefault(_escaped(name), set())
        if digest in digests:
            return
        self._size += _append(self.file, digest.encode() + b"  " + _escaped(name) + b"\n")
        digests.add(digest)


def _escaped(name: str) -> bytes:
    """A name on a line of its own."""
    return os.fsencode(name).replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def _append(file: Path, line: bytes) -> int:
    """The whole line at the end of a file, or none of it; returns the number of bytes. A link is not followed."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | vars(os).get("O_NOFOLLOW", 0) | vars(os).get("O_BINARY", 0)
    try:
        handle = os.open(file, flags, 0o666)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {file}") from error
    with open(handle, "r+b", buffering=0) as stream:
        end = os.fstat(handle).st_size
        if end:
            stream.seek(end - 1)
            if stream.read(1) != b"\n":
                line = b"\n" + line  # the one before was cut by a kill
        try:
            written = stream.write(line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            if os.fstat(handle).st_size < end + len(line):  # no other process has written behind it
                stream.truncate(end)
            if end == 0:
                file.unlink()
            raise
    return len(line)


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _size(file: Path) -> int:
    """In bytes; 0 where there is none."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _stamp(file: Path) -> tuple[int, ...]:
    """What changes when a file does; of a link its own."""
    state = file.lstat()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _holds(file: Path, content: bytes) -> bool:
    """Whether a plain file has this content."""
    if file.is_symlink() or not file.is_file() or _size(file) != len(content):
        return False
    return file.read_bytes() == content


def _identity(file: Path) -> _Identity | None:
    """Of the file that a path leads to; None where there is none."""
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def is_stream(file: Path) -> bool:
    """Whether a path leads to a pipe, a device, or an open file of this process such as /dev/stdout, which are written
    as they are."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode) or _is_descriptor(file)


def _is_descriptor(file: Path) -> bool:
    path = os.path.abspath(file)
    for _ in range(_MOST_LINKS):
        if os.path.dirname(path) in _DESCRIPTORS:
            return True
        if not os.path.islink(path):
            return False
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    return False


def temporary_name(file: Path) -> Path:
    """A name beside a file for what will take its place, with its ending."""
    return file.with_name(f".fiber-{os.getpid()}-{next(_NUMBERS)}.tmp{file.suffix}")


def _checkpoint_around(file: Path) -> Path | None:
    """The checkpoint among the folders above a file."""
    folder = Path(os.path.realpath(file.parent))
    for _ in range(_DEEPEST):
        if all((folder / name).is_file() for name in _OF_CHECKPOINTS):
            return folder
        folder = folder.parent
    return None


def _nearest_folder(file: Path) -> Path:
    """The first of a file's parents that is there."""
    folder = file.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def missing_folders(folder: Path) -> list[Path]:
    """A folder and its parents as far as they are not there, the innermost first."""
    missing = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Folders that a failed write has made, up to the first that holds something."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


@contextmanager
def explained(what: object) -> Iterator[None]:
    """A failure of the file system inside becomes a UserError that names `what`."""
    try:
        yield
    except Exception as error:
        problem = write_problem(error)
        if problem is None:
            raise
        raise UserError(f"{what}: cannot be written ({problem}); what was there is untouched") from error


def replace(file: Path, content: bytes) -> None:
    """Write a file of the program's own so that a kill or a failure leaves the old or the new one; nothing is asked,
    nothing kept in a ledger. Raises OSError."""
    temporary = temporary_name(file)
    try:
        temporary.write_bytes(content)
        sync(temporary)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(file.parent)


def _full_in_words(number: int | None) -> str:
    assert number is not None
    return f"{os.strerror(number)}: {_FULL[number]}"


def is_full(error: OSError) -> bool:
    """Whether there is no room for what was to be written: on the disk, in a quota, or in one file."""
    return error.errno in _FULL


def write_problem(error: BaseException) -> str | None:
    """Why a write failed, in words, where the file system is the reason of an exception or of one that caused it; None
    where it is not. Libraries raise RuntimeError or a bare Exception where the disk is full."""
    if isinstance(error, UserError):
        return None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and is_full(cause):
            return _full_in_words(cause.errno)
        words = str(cause).lower()
        for phrase, number in _FULL_IN_WORDS.items():
            if phrase in words:
                return _full_in_words(number)
        cause = cause.__cause__ or cause.__context__
    return error.strerror or str(error) if isinstance(error, OSError) else None


def exchange(made: Path, final: Path, earlier: Path) -> None:
    """Give a directory its name `final`; what has that name goes to `earlier`, and comes back where the first fails.
    Raises OSError."""
    if final.exists():
        final.rename(earlier)
    try:
        made.rename(final)
    except OSError:
        if earlier.exists():
            earlier.rename(final)
        raise


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
