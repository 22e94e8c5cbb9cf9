"""The picture files that a user names, or that lie below a folder. Loads no torch."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from fiber_cli.data.image_formats import SUFFIXES as SUFFIXES
from fiber_cli.data.image_formats import UNREAD_SUFFIXES, VIDEO_SUFFIXES, count_endings
from fiber_cli.errors import UserError
from fiber_cli.printing import say

#: `Path` makes one of two slashes.
_URL_AS_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:")


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files given, and all image files below the folders given, in order; links to folders are followed, but none
    into a folder twice. What looks like a picture there and is of no format that is read is counted on standard error.
    Raises UserError for a path that is not there and for a folder without images."""
    files: list[Path] = []
    for path in paths:
        check_there(path)
        files += _images_below(path) if path.is_dir() else [path]
    return files


def check_there(path: Path) -> None:
    """Raises UserError for a path that is neither a folder nor a file."""
    if path.is_dir() or path.is_file():
        return
    if _URL_AS_PATH.match(str(path)):
        raise UserError(f"{path}: a URL; download it and give the file")
    raise UserError(f"{path}: {_no_file(path)}")


def check_folder(folder: Path) -> None:
    """Raises UserError where there is no folder to search in."""
    if not folder.is_dir():
        raise UserError(f"--images {folder}: no such folder")


def _no_file(path: Path) -> str:
    """What is there instead of a file."""
    if path.exists():
        return "a pipe or a device, not a file"
    return "a link to nothing" if path.is_symlink() else "no such file or folder"


def _images_below(folder: Path) -> list[Path]:
    images = []
    unread = []
    videos = []
    for file in files_below(folder):
        suffix = file.suffix.lower()
        if suffix in UNREAD_SUFFIXES:
            unread.append(suffix)
        elif suffix in VIDEO_SUFFIXES:
            videos.append(suffix)
        elif suffix in SUFFIXES:
            if file.is_file():
                images.append(file)
            else:
                _leave_out(f"{file}: {_no_file(file)}")
    known = ", ".join(SUFFIXES)
    if unread:
        kinds = count_endings(unread)
        _leave_out(f"{folder}: {len(unread)} files of formats that are not read ({kinds}); read are {known}")
    if videos:
        kinds = count_endings(videos)
        _leave_out(f"{folder}: {len(videos)} videos ({kinds}); `fiber detect` reads those that are named")
    if not images:
        raise UserError(f"{folder}: no image files below this folder ({known})")
    return sorted(images)


def pictures_below(folder: Path) -> Iterator[Path]:
    """The files below a folder whose names end as those of pictures do."""
    for file in files_below(folder):
        if file.suffix.lower() in SUFFIXES:
            yield file


def _leave_out(what: object) -> None:
    say(f"left out: {what}")


def files_below(folder: Path) -> Iterator[Path]:
    """The files below a folder, links to nothing among them. Links to folders are followed, each folder is gone through
    once: first those that are there themselves, then those that links lead to. What cannot be listed is told."""
    seen: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        top = waiting.pop(0)
        if not _is_first_visit(top, seen):
            continue
        for parent, folders, names in os.walk(top, onerror=_leave_out):
            there = []
            for name in sorted(folders):
                path = os.path.join(parent, name)
                if os.path.islink(path):
                    waiting.append(path)
                elif _is_first_visit(path, seen):
                    there.append(name)
            folders[:] = there
            for name in names:
                yield Path(parent, name)


def _is_first_visit(folder: str, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder, by whatever path, is not among those seen; then it is from now on."""
    state = os.stat(folder)
    identity = state.st_dev, state.st_ino
    is_first = identity not in seen
    seen.add(identity)
    return is_first


def distinct_images(paths: Iterable[Path]) -> list[Path]:
    """As `find_images`, each file once."""
    return list(dict.fromkeys(find_images(paths)))
