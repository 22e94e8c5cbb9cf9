"""Pair scores on disk, so that an evaluation that was killed goes on where it was."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from fiber_cli.distributed import collectives
from fiber_cli.distributed.agreement import require_shared_folder
from fiber_cli.distributed.first_rank import on_first_rank
from fiber_cli.errors import UserError
from fiber_cli.outputs import explained, missing_folders, remove_empty, replace, write_problem
from fiber_cli.printing import say

#: What the file `key` holds before the key; version 0.1 wrote the key alone.
_BEFORE_KEY = "pair scores of fiber: "
_KEY_OF_0_1 = re.compile(r"[0-9a-f]{32}")


class _Record(NamedTuple):
    """One image with some of its texts; `end`: where the record ends, in words of 4 bytes."""

    image: int
    texts: np.ndarray
    scores: np.ndarray
    end: int


class Journal:
    """Scores in files of `folder`, one for each rank, to which it appends; all files are read, so the number of ranks
    may change.

    `key` names model and data: scores with another key are thrown away, which is said. Files of
    others in the folder stay. Where the disk has no room scores are no longer kept, which is said as well. UserError
    for a folder that is none of a journal.
    """

    def __init__(self, folder: Path, key: str):
        self.folder = folder
        self._stream: BinaryIO | None = None
        on_first_rank(partial(_prepare, folder, key))
        require_shared_folder(folder)

    def read(self, first: int, scores: np.ndarray) -> None:
        """Put what is on disk into `scores` (images, texts), whose first row is image `first`; then be ready to
        append."""
        local = self.folder / f"{collectives.rank()}.bin"
        for file in _score_files(self.folder):
            end = 0
            for record in _records(file):
                end = record.end
                if first <= record.image < first + len(scores):
                    scores[record.image - first, record.texts] = record.scores
            if file == local:
                # A kill may have cut the last record.
                os.truncate(file, 4 * end)
        collectives.gather_objects(None)
        try:
            self._stream = local.open("ab")
        except OSError as error:
            self._give_up(error)

    def append(self, image: int, texts: np.ndarray, scores: np.ndarray) -> None:
        """Write the scores of an image with some texts."""
        if self._stream is None:
            return
        head = np.array([image, len(texts), *texts], dtype=np.int32)
        try:
            self._stream.write(head.tobytes() + scores.astype(np.float32).tobytes())
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """The scores are in memory too: without room on the disk they cannot outlive a kill, and that is all."""
        self._close()
        (self.folder / f"{collectives.rank()}.bin").unlink(missing_ok=True)
        say(f"{self.folder}: pair scores are no longer kept ({write_problem(error)})")

    def _close(self) -> None:
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
        self._stream = None

    def remove(self) -> None:
        """The run is complete."""
        self._close()
        collectives.gather_objects(None)
        if collectives.is_main():
            _clear(self.folder)


def journal_folder(output: Path) -> Path:
    """Where the journal of an evaluation lies, whose results go to a folder."""
    return output / ".pairs"


def check_journal(folder: Path) -> None:
    """UserError where a folder holds files, and none that says that it is a journal's."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or (_stored_key(folder) is None and any(folder.iterdir())):
        raise UserError(
            f"{folder}: is where pair scores are kept while they are computed, and holds something else; move it away "
            "or name another output"
        )


def _prepare(folder: Path, key: str) -> None:
    """A folder that holds scores of `key` alone."""
    check_journal(folder)
    stored = _stored_key(folder)
    if stored is not None and stored != key:
        say(f"{folder}: scores of another checkpoint, precision or other data; starting afresh")
        _clear(folder)
    made = missing_folders(folder)
    try:
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            replace(folder / "key", f"{_BEFORE_KEY}{key}".encode())
    except UserError:
        remove_empty(made)
        raise


def _stored_key(folder: Path) -> str | None:
    """The key of the scores in a folder; None where there is none."""
    try:
        content = (folder / "key").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    if content.startswith(_BEFORE_KEY) or _KEY_OF_0_1.fullmatch(content):
        return content.removeprefix(_BEFORE_KEY)
    return None


def _score_files(folder: Path) -> list[Path]:
    return [file for file in folder.glob("*.bin") if file.stem.isdecimal()]


def _clear(folder: Path) -> None:
    """Remove what a journal has written, and the folder where nothing else is in it."""
    for file in [*_score_files(folder), folder / "key"]:
        file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _records(file: Path) -> Iterator[_Record]:
    """The whole records of a file: image, number of texts, the texts, their scores as float32."""
    words = np.fromfile(file, dtype=np.int32)
    start = 0
    while start + 2 <= len(words):
        image, count = words[start : start + 2].tolist()
        middle = start + 2 + count
        end = middle + count
        if end > len(words):
            return
        yield _Record(image, words[start + 2 : middle], words[middle:end].view(np.float32), end)
        start = end
