"""Archives into folders: no member outside the folder, each whole or not there."""

import posixpath
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from tqdm import tqdm

from fiber_cli.errors import UserError, first_names
from fiber_cli.outputs import explained, temporary_name

_BLOCK = 1 << 20


class _Member(NamedTuple):
    """A file of an archive: how it is read, how many bytes it has, and its CRC-32 where the archive has it."""

    name: str
    size: int
    crc: int | None
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, *, members: Sequence[str] = (), flat: bool = False) -> int:
    """The files of a zip or a tar into a folder; returns how many. members: patterns of their paths or names, all
    without any; flat: without their folders. A file that is there with the content of the archive's stays.

    Raises `UserError` for a damaged archive, for one that lacks one of `members`, for a member outside the folder, and
    for a file that is there with another content.
    """
    unmet = set(members)
    count = 0
    try:
        for member in tqdm(_members(archive), f"unpacking {archive.name}", delay=2, disable=None):
            fitting = {pattern for pattern in members if _fits(member.name, pattern)}
            if members and not fitting:
                continue
            unmet -= fitting
            count += 1
            _write(member, _place(archive, folder, member.name, flat))
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: a damaged archive ({error}); remove it and fetch it again") from None
    if unmet:
        raise UserError(f"{archive}: has no {first_names(sorted(unmet))}; it is another archive than it was")
    return count


def _fits(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(posixpath.basename(name), pattern)


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if not info.is_dir():
                    yield _Member(info.filename, info.file_size, info.CRC, partial(opened.open, info))
        return
    with tarfile.open(archive) as tar:
        for entry in tar:
            if entry.isfile():
                yield _Member(entry.name, entry.size, None, partial(_content, tar, entry))


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(entry)
    assert content is not None, "a plain file"
    return content


def _place(archive: Path, folder: Path, name: str, flat: bool) -> Path:
    parts = posixpath.normpath(name.replace("\\", "/")).split("/")
    if parts[0] in ("", "..") or ":" in parts[0]:
        raise UserError(f"{archive}: its member {name} would lie outside {folder}; it is not unpacked")
    return folder / parts[-1] if flat else folder.joinpath(*parts)


def _write(member: _Member, file: Path) -> None:
    if file.exists():
        if not _is_same(member, file):
            raise UserError(f"{file}: is there and is not the file of the archive; remove it, or name another folder")
        return
    with explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(file)
        try:
            with member.open() as content, open(temporary, "wb") as stream:
                shutil.copyfileobj(content, stream, _BLOCK)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def _is_same(member: _Member, file: Path) -> bool:
    """Whether a file has the member's content, by its CRC where the archive has one."""
    if not file.is_file() or file.stat().st_size != member.size:
        return False
    crc = member.crc
    if crc is None:
        with member.open() as content:
            crc = _crc(content)
    with open(file, "rb") as stream:
        return _crc(stream) == crc


def _crc(stream: IO[bytes]) -> int:
    crc = 0
    while block := stream.read(_BLOCK):
        crc = zlib.crc32(block, crc)
    return crc
