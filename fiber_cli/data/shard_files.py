"""The bytes of shards from a place in them: of files, of addresses, and of commands.

An address, such as `https://…` or `s3://…`, is read by fsspec, a part at a time. What has no parts, which is what a
command (`pipe:…`) writes and what a server without ranges sends, goes through once and is kept in the user's cache
folder until other such shards take its place.
"""

import atexit
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import unquote, urlsplit

from fiber_cli.data.cache_folder import VARIABLE, cache_folders, digest, made_by_one
from fiber_cli.data.remote_files import file_info, file_system, has_parts, read_remote, tried
from fiber_cli.errors import UserError
from fiber_cli.regular_files import check_regular
from fiber_cli.remote_paths import PIPE, is_remote

#: Held while a file is read from a place in it, where the two cannot be one call.
_SEEKING = threading.Lock()
#: Bytes that are read at once while a shard is gone through: of a disk, of a server.
_BLOCK, _REMOTE_BLOCK = 1 << 20, 8 << 20
#: How often one that is kept is opened, which may be removed for others.
_TRIES_TO_OPEN = 20
#: How many shards without parts are kept, of all that were read: twice those among which samples are shuffled.
MOST_KEPT = 32
_LAST_WORDS = 300
#: After so long without a byte a part is nobody's any more.
_SECONDS_OF_A_PART = 24 * 3600
#: Commands that are running, in sessions of their own.
_COMMANDS: "set[subprocess.Popen[bytes]]" = set()
#: What is asked of a server about a file, by which another content is another file.
_VERSION = ("ETag", "etag", "Last-Modified", "LastModified", "mtime", "updated", "created")


def shard_name(path: str) -> str:
    """The name of a shard without its ending, by which its samples are known: of a command that of the last of its
    words that ends in .tar, else a digest of it."""
    if path.startswith(PIPE):
        tars = re.findall(r"([^\s/\"'=?]+)\.tar\b", path)
        if tars:
            return str(tars[-1])
        return digest(path)[:12]
    if is_remote(path):
        path = unquote(urlsplit(path).path)
    return Path(path).stem


def set_name(path: str) -> str:
    """The name of the shards behind an address or a command: of several, with `*` or `{…}`, that of their folder."""
    name = shard_name(path)
    if not any(sign in name for sign in "*{["):
        return name
    files = re.findall(r"[^\s\"'=]+\.tar\b", path) if path.startswith(PIPE) else [unquote(urlsplit(path).path)]
    return Path(files[-1]).parent.name or "shards"


class ShardState(NamedTuple):
    """What tells that a shard is as it was. size: in bytes, None where that is not known before it is read; version:
    what else changes with its content."""

    size: int | None
    version: str


class ShardFile(ABC):
    """A shard that is open. Raises OSError where it cannot be read."""

    #: Bytes that are read at once while it is gone through.
    block = _BLOCK

    @abstractmethod
    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from a place in it; threads, and processes that were forked, can share it."""

    @abstractmethod
    def size(self) -> int:
        """Of all of it, in bytes."""

    def prepare(self, start: int, end: int) -> None:  # noqa: B027
        """What lies between two places is going to be read, piece by piece."""

    def close(self) -> None:  # noqa: B027
        """Nothing more is read."""


class LocalShard(ShardFile):
    """One on a disk."""

    def __init__(self, path: str | Path):
        self.file: FileIO = open(path, "rb", buffering=0)  # noqa: SIM115

    def read(self, size: int, offset: int) -> bytes:
        if "pread" in vars(os):
            return os.pread(self.file.fileno(), size, offset)
        with _SEEKING:  # Windows has no pread, and forks no processes
            self.file.seek(offset)
            return self.file.read(size)

    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def close(self) -> None:
        self.file.close()


class RemoteShard(ShardFile):
    """One at an address, whose server sends parts."""

    block = _REMOTE_BLOCK

    def __init__(self, url: str):
        self.url = url
        self._start, self._content = 0, b""
        self._size: int | None = None

    def prepare(self, start: int, end: int) -> None:
        """One request for a picture with its text, where they are not so large that both would not be wanted."""
        is_there = self._start <= start and end <= self._start + len(self._content)
        if not is_there and end - start <= _REMOTE_BLOCK:
            self._start, self._content = start, self._fetched(end - start, start)

    def size(self) -> int:
        if self._size is None:
            size = file_info(self.url).get("size")
            if not isinstance(size, int):
                raise OSError(f"{self.url}: the server does not say how large it is")
            self._size = size
        return self._size

    def read(self, size: int, offset: int) -> bytes:
        if self._start <= offset and offset + size <= self._start + len(self._content):
            return self._content[offset - self._start :][:size]
        return self._fetched(size, offset)

    def _fetched(self, size: int, offset: int) -> bytes:
        if not size or offset >= self.size():
            return b""
        content = read_remote(self.url, offset, offset + size)
        if len(content) > size:
            raise OSError(f"{self.url}: the server sends more than the part that it was asked for")
        return content


class Blocks:
    """A shard that is gone through from its beginning to its end: few reads of large blocks."""

    def __init__(self, shard: ShardFile):
        self.shard = shard
        self._start, self._content = 0, b""

    def read(self, size: int, offset: int) -> bytes:
        """As `ShardFile.read`."""
        is_there = self._start <= offset and offset + size <= self._start + len(self._content)
        if not is_there:
            self._start, self._content = offset, self.shard.read(max(size, self.shard.block), offset)
        return self._content[offset - self._start :][:size]


def open_shard(path: str, state: ShardState | None = None) -> ShardFile:
    """The shard behind a path, an address or a command. state: in which it is; None: in that in which it was opened
    last, of what is kept, so that a server need not be there. Raises OSError."""
    if not is_remote(path):
        return LocalShard(path)
    if path.startswith(PIPE) or not has_parts(path):
        return _open_kept(path, state)
    return RemoteShard(path)


def shard_state(path: str) -> ShardState:
    """Of the shard behind a path, an address or a command; a command is believed to write always the same. Raises
    OSError, and UserError for an address of a kind that is not read."""
    if path.startswith(PIPE):
        return ShardState(None, "")
    if is_remote(path):
        info = file_info(path)
        size = info.get("size")
        version = "|".join(str(info[name]) for name in _VERSION if name in info)
        return ShardState(size if isinstance(size, int) else None, version)
    check_regular(path)
    state = os.stat(path)
    return ShardState(state.st_size, str(state.st_mtime_ns))


def _open_kept(path: str, state: ShardState | None) -> LocalShard:
    """What is kept of a path in this state, None for any, opened: another thread or process that keeps something else
    may remove it before."""
    for _ in range(_TRIES_TO_OPEN):
        with suppress(FileNotFoundError):
            return LocalShard(_kept(path, state))
    raise OSError("what is kept of it is removed at once, for the shards that other processes read")


def _kept(path: str, state: ShardState | None) -> Path:
    """What a command writes, or a server without parts sends, as a file."""
    folder = _streams()
    file = next(_kept_of(path), None) if state is None else None
    if file is None:
        state = state or shard_state(path)
        file = folder / f"{digest(path)[:32]}-{digest(f'{state.size}|{state.version}')[:32]}.tar"
    with made_by_one(file, f"{path}: another process is fetching it"):
        if file.is_file():
            with suppress(OSError):
                os.utime(file)  # the ones that were not used for long go first
        else:
            forget_kept(path)
            _keep(path, file)
    _remove_old(folder, file)
    return file


def forget_kept(path: str) -> None:
    """Have what is kept of an address or a command be read anew, whatever it was."""
    if is_remote(path):
        for file in _kept_of(path):
            with suppress(OSError):
                file.unlink()


def _kept_of(path: str) -> Iterator[Path]:
    """What is kept of a path, in whatever state it was."""
    return _streams().glob(f"{digest(path)[:32]}-*.tar")


def _streams() -> Path:
    """The folder of what is kept."""
    return cache_folders(None)[0] / "streams"


def _keep(path: str, file: Path) -> None:
    """UserError for a folder that takes no files."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", suffix=".part", delete=False)  # noqa: SIM115
    except OSError as error:
        raise _unkept(path, file.parent, error) from error
    with part:
        try:
            if path.startswith(PIPE):
                _run(path.removeprefix(PIPE), part)
            else:
                _send(path, part)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise
    os.replace(part.name, file)


def _unkept(path: str, folder: Path, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(
        f"{folder}: cannot keep there what {path} sends ({reason}); make room, or name another folder with {VARIABLE}"
    )


def _run(command: str, into: "IO[bytes]") -> None:
    """What a command of the shell writes. OSError where it fails."""
    with tempfile.TemporaryFile() as words:
        # In a session of its own all that it has started can be ended. What a launcher or another process has started
        # stays in the group that they end.
        is_alone = "RANK" not in os.environ and multiprocessing.parent_process() is None
        process = subprocess.Popen(
            command, shell=True, stdin=subprocess.DEVNULL, stdout=into, stderr=words, start_new_session=is_alone
        )
        if is_alone:
            _COMMANDS.add(process)
        try:
            code = process.wait()
        finally:
            _COMMANDS.discard(process)
        words.seek(0)
        said = words.read().decode(errors="replace").strip()[-_LAST_WORDS:]
    if code:
        raise OSError(f"the command ended with {code}{said and ': ' + said}")


def _end_commands() -> None:
    """End the commands that a thread still waits for."""
    for process in list(_COMMANDS):
        with suppress(OSError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)


atexit.register(_end_commands)


def _send(url: str, into: "IO[bytes]") -> None:
    """All that a server sends of an address. UserError where there is no room for it."""

    def whole() -> None:
        into.seek(0)
        into.truncate()
        files, path = file_system(url)
        with files.open(path, "rb", block_size=0) as stream:
            while content := stream.read(_REMOTE_BLOCK):
                keep(content)

    def keep(content: bytes) -> None:
        try:
            into.write(content)
            into.flush()
        except OSError as error:
            raise _unkept(url, Path(into.name).parent, error) from error

    tried(url, whole)


def _remove_old(folder: Path, newest: Path) -> None:
    """All but the last ones that were used; a process that has one open reads on. Also parts that a process which was
    killed has left."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _SECONDS_OF_A_PART:
                part.unlink()
    kept = []
    for file in folder.glob("*.tar"):
        with suppress(OSError):
            kept.append((file.stat().st_mtime_ns, file))
    for _, file in sorted(kept, reverse=True)[MOST_KEPT:]:
        if file != newest:
            with suppress(OSError):
                file.unlink()
