"""A disk of a known free space, by a file system in memory where mounts are permitted, else by `full_disk.c`.

The first is a tmpfs in the mount namespace of the server's process alone: what it holds is seen there only, so that the
functions below are called in that process (`Program.call`).
"""

import ctypes
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from benchmarks.faults.program import Program

#: Size of the file system in memory; what is not to be free is filled.
DISK_BYTES = 128 * 1024 * 1024
#: The file that fills it.
FILLER = "filler"
#: Where each way to mount is tried, in this order.
NAMESPACES = (("unshare", "--mount"), ("unshare", "--map-root-user", "--mount"))
MOUNTED = "a tmpfs in a mount namespace of its own"
COUNTED = "write calls counted by a library that is loaded before the C library"


class Disk(Protocol):
    """A folder whose free space can be set. means: how, in words; program: the one that sees it."""

    means: str
    program: Program
    folder: Path

    def leave(self, free: int) -> None:
        """Make so many bytes of it free."""

    def make_room(self) -> None:
        """Make enough of it free for everything."""


class MountedDisk:
    """A tmpfs."""

    means = MOUNTED

    def __init__(self, program: Program, folder: Path):
        self.program = program
        self.folder = folder
        program.call("full_disk:mount", str(folder))

    def leave(self, free: int) -> None:
        self.program.call("full_disk:fill", str(self.folder), free)

    def make_room(self) -> None:
        self.program.call("full_disk:empty", str(self.folder))


class CountedDisk:
    """A folder whose writes are counted."""

    means = COUNTED

    def __init__(self, program: Program, folder: Path, size_file: Path):
        self.program = program
        self.folder = folder
        self.size_file = size_file

    def leave(self, free: int) -> None:
        used = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        self.size_file.write_text(str(used + free))

    def make_room(self) -> None:
        self.size_file.unlink(missing_ok=True)


class NoDisk(Exception):
    """Neither way works here; the message says why."""


@contextmanager
def full_disk(home: Path, *, counted: bool = False) -> Iterator[Disk]:
    """The first of the ways that works here, with a program that sees the disk. home: a folder for both; counted: take
    the second. Raises `NoDisk`."""
    folder = home / "disk"
    folder.mkdir(parents=True)
    namespace = None if counted else mount_namespace()
    if namespace is not None:
        with Program(home / "home", prefix=namespace) as program:
            yield MountedDisk(program, folder)
        return
    library = build_library(home)
    size_file = home / "size"
    variables = {"LD_PRELOAD": str(library), "FAULTS_DISK": str(folder), "FAULTS_SIZE": str(size_file)}
    with Program(home / "home", variables=variables) as program:
        yield CountedDisk(program, folder, size_file)


def mount_namespace() -> tuple[str, ...] | None:
    """The words before a command that give it mounts of its own and the right to mount; None where nothing does."""
    if shutil.which("unshare") is None:
        return None
    for words in NAMESPACES:
        tried = subprocess.run([*words, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
        if tried.returncode == 0:
            return words
    return None


def build_library(folder: Path) -> Path:
    """`full_disk.c` compiled. Raises `NoDisk`."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise NoDisk("mounts are not permitted here, and there is no C compiler `cc`")
    library = folder / "full_disk.so"
    source = Path(__file__).with_name("full_disk.c")
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"],
        capture_output=True,
        text=True,
    )
    if built.returncode:
        raise NoDisk(f"mounts are not permitted here, and {source.name} does not compile: {built.stderr[-500:]}")
    return library


# Called in the server's process.


def mount(folder: str) -> None:
    """Mount an empty tmpfs of `DISK_BYTES`."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={DISK_BYTES},mode=755".encode()
    if libc.mount(b"none", folder.encode(), b"tmpfs", 0, options):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), folder)


def fill(folder: str, free: int) -> None:
    """Write as much as leaves so many bytes free, in whole pages."""
    empty(folder)
    space = os.statvfs(folder)
    page = space.f_frsize
    left = space.f_bavail - -(-free // page)
    with open(Path(folder, FILLER), "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, max(1, left * page))


def empty(folder: str) -> None:
    """Remove what fills the disk."""
    Path(folder, FILLER).unlink(missing_ok=True)


def clear(folder: str) -> None:
    """Remove everything on the disk."""
    for path in Path(folder).iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def used(folder: str) -> int:
    """Bytes on the disk, without what fills it."""
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file() and file.name != FILLER)


def marks(folder: str) -> dict[str, str]:
    """Path → what is there, of all on the disk but what fills it: "folder", "JSON" or "no JSON" for what holds times,
    of all other files a digest."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.name != FILLER:
            found[str(path.relative_to(folder))] = mark(path)
    return found


def mark(path: Path) -> str:
    if path.is_dir():
        return "folder"
    if path.suffix in (".json", ".jsonl"):
        try:
            for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
                json.loads(text)
        except ValueError:
            return "no JSON"
        return "JSON"
    return hashlib.sha256(path.read_bytes()).hexdigest()
