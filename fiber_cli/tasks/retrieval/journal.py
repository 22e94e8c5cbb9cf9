"""Pair scores on disk, so that an evaluation that was killed goes on where it was."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fiber_cli.distributed import collectives
from fiber_cli.distributed.agreement import require_shared_folder


class _Record(NamedTuple):
    """One image with some of its texts; `end`: where the record ends, in words of 4 bytes."""

    image: int
    texts: np.ndarray
    scores: np.ndarray
    end: int


class Journal:
    """Scores in files of `folder`, one for each rank, to which it appends; all files are read, so the number of ranks
    may change.

    `key` names model and data: scores with another key are thrown away, which is said.
    """

    def __init__(self, folder: Path, key: str):
        self.folder = folder
        if collectives.is_main():
            _prepare(folder, key)
        require_shared_folder(folder)

    def read(self, first: int, scores: np.ndarray) -> None:
        """Put what is on disk into `scores` (images, texts), whose first row is image `first`; then be ready to
        append."""
        local = self.folder / f"{collectives.rank()}.bin"
        for file in self.folder.glob("*.bin"):
            end = 0
            for record in _records(file):
                end = record.end
                if first <= record.image < first + len(scores):
                    scores[record.image - first, record.texts] = record.scores
            if file == local:
                # A kill may have cut the last record.
                os.truncate(file, 4 * end)
        collectives.gather_objects(None)
        self._stream = local.open("ab")

    def append(self, image: int, texts: np.ndarray, scores: np.ndarray) -> None:
        """Write the scores of an image with some texts."""
        head = np.array([image, len(texts), *texts], dtype=np.int32)
        self._stream.write(head.tobytes() + scores.astype(np.float32).tobytes())
        self._stream.flush()

    def remove(self) -> None:
        """The run is complete."""
        self._stream.close()
        collectives.gather_objects(None)
        if collectives.is_main():
            shutil.rmtree(self.folder)


def _prepare(folder: Path, key: str) -> None:
    """A folder that holds scores of `key` alone."""
    key_file = folder / "key"
    if folder.is_dir() and not (key_file.is_file() and key_file.read_text(encoding="utf-8") == key):
        print(f"{folder}: scores of another checkpoint or other data; starting afresh", file=sys.stderr)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key_file.write_text(key, encoding="utf-8")


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
