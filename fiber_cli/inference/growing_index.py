"""The features of pictures while they are computed, in a file beside the index that they will be in, so that a command
that was killed goes on where it was.

A piece of the file is the length of a JSON text, 8 bytes, this text, `{"images": [[path, size, changed], …], "width":
D, "dtype": …, "sum": …}`, and the features, whose CRC-32 is the sum; what is behind the last whole piece was cut by a
kill. In front of the pieces stands MAGIC and a line with the checkpoint's fingerprint.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fiber_cli.data.columns import map_array
from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.inference.index_file import Stamp
from fiber_cli.outputs import explained
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import check_regular

MAGIC = b"fiber growing index\n"
_LENGTH = 8
_LONGEST = 1 << 30


class _Piece(NamedTuple):
    """Some pictures with their features. end: where the piece ends in the file."""

    stamps: dict[str, Stamp]
    features: np.ndarray
    end: int


class GrowingIndex:
    """What a checkpoint has computed so far for the index in `file`."""

    def __init__(self, file: Path, fingerprint: str):
        self.file = file.with_name(f"{file.name}.growing")
        self._head = MAGIC + fingerprint.encode() + b"\n"
        #: Where the whole pieces end; None before the file was looked at.
        self._end: int | None = None

    def check(self) -> None:
        """UserError for a file of that name that is none of ours."""
        if os.path.lexists(self.file) and not self._begins(MAGIC):
            raise UserError(
                f"{self.file}: is where an index is kept while it is made, and is another file; move it away"
            )

    def _begins(self, head: bytes) -> bool:
        try:
            check_regular(self.file)
            with self.file.open("rb") as stream:
                return stream.read(len(head)) == head[: self.file.stat().st_size]
        except OSError:
            return False

    def features(self, stamps: Mapping[str, Stamp]) -> dict[str, np.ndarray]:
        """Those of pictures that are as they were when they were computed, by path, mapped from the file."""
        features = {}
        for piece in self._pieces():
            for row, (path, stamp) in zip(piece.features, piece.stamps.items(), strict=True):
                if stamps.get(path) == stamp:
                    features[path] = row
        return features

    def _pieces(self) -> Iterator[_Piece]:
        if not self._begins(self._head):
            return
        end = len(self._head)
        try:
            while True:
                piece = self._piece(end)
                yield piece
                end = piece.end
        except (*WRONG_CONTENT, OSError):
            return  # cut by a kill, or the end

    def _piece(self, start: int) -> _Piece:
        with self.file.open("rb") as stream:
            stream.seek(start)
            length = int.from_bytes(stream.read(_LENGTH), "little")
            if not 0 < length <= _LONGEST:
                raise ValueError("no piece")
            described = parse_json(stream.read(length))
        stamps = {str(path): (int(size), int(changed)) for path, size, changed in described["images"]}
        shape = len(described["images"]), int(described["width"])
        features = map_array(self.file, str(np.dtype(described["dtype"]).str), shape, start + _LENGTH + length)
        if zlib.crc32(features.data) != described["sum"] or len(stamps) != shape[0]:
            raise ValueError("a damaged piece")
        return _Piece(stamps, features, start + _LENGTH + length + features.nbytes)

    def append(self, stamps: Sequence[tuple[str, Stamp]], features: np.ndarray) -> None:
        """Put pictures with their features (images, D) behind the whole pieces. UserError where that cannot be
        written."""
        if self._end is None:
            self._end = max((piece.end for piece in self._pieces()), default=0)
        images = [[path, *stamp] for path, stamp in stamps]
        described = {"images": images, "width": features.shape[1], "dtype": features.dtype.str}
        content = np.ascontiguousarray(features).tobytes()
        encoded = json.dumps(described | {"sum": zlib.crc32(content)}).encode()
        with explained(self.file), self.file.open("r+b" if self._end else "wb") as stream:
            stream.truncate(self._end)
            stream.seek(self._end)
            if not self._end:
                stream.write(self._head)
            stream.write(len(encoded).to_bytes(_LENGTH, "little") + encoded + content)
            stream.flush()
            os.fsync(stream.fileno())
            self._end = stream.tell()

    def remove(self) -> None:
        """All is in the index."""
        self.file.unlink(missing_ok=True)
