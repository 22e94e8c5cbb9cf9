"""Where what was found out about large files is kept: beside them, so that all machines that see them share it, or in
the user's cache folder where nothing can be written there."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from fiber_cli.data.file_records import say_once

#: The folder beside the files, and what names another one for all.
CACHE, VARIABLE = ".fiber-cache", "FIBER_CACHE"
#: Seconds of waiting after which it is said for whom.
_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.2


def user_cache() -> Path:
    """fiber's folder in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fiber")


def cache_folders(beside: Path | None) -> list[Path]:
    """Where something about the files in a folder may lie, the place where it is written first. None: of what lies in
    no folder."""
    named = os.environ.get(VARIABLE)
    if named:
        return [Path(named).expanduser()]
    if beside is None:
        return [user_cache()]
    own = beside / CACHE
    written = own if own.is_dir() else beside
    if os.access(written, os.W_OK | os.X_OK):
        return [own, user_cache()]
    return [user_cache(), own]  # of another user, who may have kept something


def digest(*parts: str) -> str:
    """Of texts, 64 hexadecimal digits, by which what is kept of them is named."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()


@contextmanager
def made_by_one(file: Path, doing: str = "") -> Iterator[None]:
    """Inside, no other process makes this file. doing: what another one that makes it is doing, in words, which is told
    to who waits long. Where the file system has no locks several may make it, and the last one's stays."""
    lock = filelock.FileLock(file.with_name(f"{file.name}.lock"))
    began = time.monotonic()
    has_spoken = False
    is_locked = False
    while not is_locked:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_POLL_SECONDS)
            is_locked = True
        except filelock.Timeout:
            if doing and time.monotonic() - began > _PATIENCE_SECONDS and not has_spoken:
                say_once(f"{doing}; waiting for that")
                has_spoken = True
        except (OSError, NotImplementedError):
            break  # no locks there, or no place to write
    try:
        yield
    finally:
        if is_locked:
            # Whoever waits for the removed file looks for what was made before it makes it again.
            with suppress(OSError):
                Path(lock.lock_file).unlink()
        lock.release()
