"""Text stems of a whole data set, in memory or on disk."""

import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from fiber_cli.data.padding import text_width
from fiber_cli.distributed.device import GIB
from fiber_cli.errors import UserError
from fiber_cli.model.fusion import TextStem

#: Of a file system that cannot take blocks ahead.
_CANNOT_ALLOCATE = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
#: Bytes written at a time.
_ZEROS = 1 << 24


class TextStems:
    """Text stems by number, float32, in memory if they fit in `memory` bytes, else in a file in `folder` that has no
    name, so that it goes with the process. UserError where the disk has no room for it."""

    def __init__(self, count: int, length: int, width: int, *, memory: int, folder: Path | None):
        shape = count, length, width
        size = 4 * count * length * width
        self.lengths = np.zeros(count, dtype=np.int64)
        self.spilled = size > memory
        self._rows = _on_disk(shape, size, folder) if self.spilled else np.empty(shape, dtype=np.float32)

    def put(self, numbers: Sequence[int], stem: TextStem) -> None:
        """Keep the real tokens of stems (B, L, C)."""
        lengths = stem.mask.sum(1).cpu().numpy()
        self.lengths[numbers] = lengths
        stems = stem.tokens.float().cpu().numpy()
        for number, length, tokens in zip(numbers, lengths, stems, strict=True):
            self._rows[number, :length] = tokens[:length]

    def get(self, numbers: np.ndarray, device: torch.device) -> TextStem:
        """Stems as wide as the longest of them."""
        lengths = torch.from_numpy(self.lengths[numbers])
        rows = [torch.from_numpy(self._rows[number, : self.lengths[number]]) for number in numbers]
        tokens = pad_sequence(rows, batch_first=True)
        width = text_width(tokens.shape[1], self._rows.shape[1])
        tokens = F.pad(tokens, (0, 0, 0, width - tokens.shape[1]))
        positions = torch.arange(tokens.shape[1])
        mask = positions[None] < lengths[:, None]
        return TextStem(tokens.to(device), mask.to(device))


def _on_disk(shape: tuple[int, int, int], size: int, folder: Path | None) -> np.ndarray:
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as the array)
        _take_room(file, size)
    except OSError as error:
        raise UserError(
            f"no room for {size / GIB:.1f} GiB of text stems in {folder or tempfile.gettempdir()} "
            f"({error.strerror}): free some space, or write the results to another disk"
        ) from None
    return np.memmap(file, np.float32, "r+", shape=shape)


def _take_room(file: BinaryIO, size: int) -> None:
    """Take the disk's blocks: a hole in the file would end the process when the disk is full, not raise."""
    if "posix_fallocate" in vars(os):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in _CANNOT_ALLOCATE:
                raise
    # Windows and macOS do not have it, some file systems do not do it.
    zeros = bytes(min(size, _ZEROS))
    for start in range(0, size, _ZEROS):
        file.write(zeros[: size - start])
    file.flush()
