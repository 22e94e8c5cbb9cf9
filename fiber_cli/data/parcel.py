"""What worker processes that are not forked are sent: pickled once, whatever their number, and mapped by all of them.

Large arrays lie in memory that the workers share, as they would after a fork, and files that are mapped into memory are
handed over open, so that all read the same file whatever has become of its name.
"""

import gc
import io
import mmap
import os
import pickle
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple, Protocol

from torch.utils.data import Dataset

from fiber_cli.data.columns import OpenFile

#: Arrays of fewer bytes are pickled with all else, which each worker has for itself.
SHARED_BYTES = 1 << 16
#: Arrays begin at multiples of that.
_ALIGNED = 64


class _Handed(Protocol):
    """An open file that goes to another process with what is being pickled for it."""

    def detach(self) -> int: ...


class _Written(NamedTuple):
    """memory: a file with a pickle of `length` bytes, and behind it the arrays that belong to it, from where to where.
    files: those that the pickle names by their numbers here."""

    memory: OpenFile
    length: int
    spans: list[tuple[int, int]]
    files: list[OpenFile]


class Parcel:
    """Something for worker processes. Starting one raises what pickling raises where it cannot be pickled."""

    def __init__(self, content: Any):
        self.content = content

    @cached_property
    def _written(self) -> _Written:
        files: list[OpenFile] = []
        arrays: list[pickle.PickleBuffer] = []
        pickled = io.BytesIO()
        _Pickler(pickled, arrays, files).dump(self.content)
        memory = OpenFile.of(_memory())
        spans = []
        with open(memory.descriptor, "wb", closefd=False) as stream:
            stream.write(pickled.getbuffer())
            for array in arrays:
                start = -(-stream.tell() // _ALIGNED) * _ALIGNED
                stream.seek(start)
                stream.write(array.raw())
                spans.append((start, stream.tell()))
        return _Written(memory, len(pickled.getbuffer()), spans, files)

    def __reduce__(self) -> Any:
        memory, length, spans, files = self._written
        handed = [DupFd(file.descriptor) for file in files]
        return ReceivedParcel, (DupFd(memory.descriptor), length, spans, handed)


class ReceivedParcel:
    """A parcel in a worker. It is opened when something is asked of it, not while the worker starts, when nobody could
    be told of an error."""

    def __init__(self, memory: _Handed, length: int, spans: Sequence[tuple[int, int]], files: Sequence[_Handed]):
        self._memory, self._length, self._spans, self._files = memory, length, spans, files

    @cached_property
    def content(self) -> Any:
        """What was sent, the same object each time."""
        with open(self._memory.detach(), "rb") as stream:
            # What is written to becomes the worker's own, as after a fork.
            mapped = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY))
        arrays = [mapped[start:end] for start, end in self._spans]
        files = [OpenFile.of(file.detach()) for file in self._files]
        with _uncollected():
            return _Unpickler(io.BytesIO(mapped[: self._length]), arrays, files).load()


class SentDataset(Dataset[Any]):
    """The data set of a loader whose workers are sent it; dataset: of samples by key. It and `SentCollate` are made of
    one parcel, of (dataset, collate_fn)."""

    def __init__(self, parcel: Parcel):
        self.parcel = parcel

    def __len__(self) -> int:
        return len(self.parcel.content[0])

    def __getitem__(self, key: Any) -> Any:
        return self.parcel.content[0][key]


class SentCollate:
    """What makes batches of the samples in a worker."""

    def __init__(self, parcel: Parcel):
        self.parcel = parcel

    def __call__(self, samples: list[Any]) -> Any:
        return self.parcel.content[1](samples)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Many objects are made at once, of which none is garbage: looking for some takes six times as long."""
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_enabled:
            gc.enable()


def _memory() -> int:
    """An empty file without a name."""
    if sys.platform != "linux":
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    return os.memfd_create("fiber")


class _Pickler(pickle.Pickler):
    """arrays, files: get the large arrays and the files of what is pickled."""

    def __init__(self, stream: io.BytesIO, arrays: list[pickle.PickleBuffer], files: list[OpenFile]):
        def is_small(array: pickle.PickleBuffer) -> bool:
            if array.raw().nbytes < SHARED_BYTES:
                return True
            arrays.append(array)
            return False

        super().__init__(stream, pickle.HIGHEST_PROTOCOL, buffer_callback=is_small)
        self._files = files

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, OpenFile):
            return None
        if value not in self._files:
            self._files.append(value)
        return self._files.index(value)


class _Unpickler(pickle.Unpickler):
    """arrays, files: in the order in which the pickler gave them."""

    def __init__(self, stream: io.BytesIO, arrays: Sequence[memoryview], files: Sequence[OpenFile]):
        super().__init__(stream, buffers=arrays)
        self._files = files

    def persistent_load(self, number: Any) -> OpenFile:
        return self._files[number]
