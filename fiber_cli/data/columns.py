"""Lists of texts, ids and sizes in a few arrays each, which may lie in a file that all processes of a machine share."""

import os
import weakref
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, overload

import numpy as np

from fiber_cli.data.values import identifier

Value = TypeVar("Value")
#: Texts that are decoded at a time when all are gone through.
_BLOCK = 4096
#: What stands for nothing in a column of ids, none of which is empty.
_NOTHING = ""


class OpenFile:
    """A file that is open for reading as long as something refers to this. Pickled it is its path; workers are handed
    the open file, see `data.parcel`. Raises OSError."""

    def __init__(self, path: str | Path):
        self.path = os.path.abspath(path)
        self._own(os.open(path, os.O_RDONLY))

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """One that is open already, of which nobody knows the path."""
        file = cls.__new__(cls)
        file.path = ""
        file._own(descriptor)
        return file

    def _own(self, descriptor: int) -> None:
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def __reduce__(self) -> Any:
        return OpenFile, (self.path,)


class MappedArray(np.memmap):
    """An array in a file, read-only. Pickled it is the place in the file, so that worker processes share it too; what
    is made of it, slices for instance, is pickled as any array."""

    #: Of the array itself, not of what is made of it.
    file: OpenFile | None = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.file is None:
            return np.array(self, subok=False).__reduce_ex__(protocol)
        return map_array, (self.file, self.dtype.str, self.shape, self.offset)


def map_array(file: str | Path | OpenFile, dtype: str, shape: tuple[int, ...], offset: int) -> np.ndarray:
    """The array at a place in a file. Raises OSError, and ValueError for a place that is not in the file."""
    if 0 in shape:
        return np.empty(shape, dtype)  # nothing can be mapped
    if not isinstance(file, OpenFile):
        file = OpenFile(file)
    with open(file.descriptor, "rb", closefd=False) as stream:
        array = MappedArray(stream, dtype=dtype, mode="r", offset=offset, shape=shape)
    array.file = file
    return array


class Listed(Sequence[Value]):
    """A sequence of which a subclass tells each value by its number, from 0."""

    @abstractmethod
    def _at(self, number: int) -> Value: ...

    @overload
    def __getitem__(self, i: int) -> Value: ...
    @overload
    def __getitem__(self, i: slice) -> list[Value]: ...
    def __getitem__(self, i: int | slice) -> Value | list[Value]:
        if isinstance(i, slice):
            return [self._at(number) for number in range(*i.indices(len(self)))]
        return self._at(range(len(self))[i])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


class Column(Listed[Value]):
    """Values as UTF-8, one behind the other. A subclass says what text stands for a value."""

    def __init__(self, values: Iterable[Value]):
        content = bytearray()
        ends = array("q")
        for value in values:
            # File names that are not UTF-8 hold halves of surrogates.
            content += self._text(value).encode("utf-8", "surrogatepass")
            ends.append(len(content))
        self._content = np.frombuffer(content, np.uint8)
        self._ends = np.array(ends, np.int64)

    @classmethod
    def of(cls, content: np.ndarray, ends: np.ndarray) -> Self:
        """Of the bytes of all texts, and where each ends among them; ValueError for what is none of such."""
        lengths = np.diff(ends, prepend=0)
        last = int(ends[-1]) if len(ends) else 0
        if ends.ndim != 1 or content.ndim != 1 or (lengths < 0).any() or last != len(content):
            raise ValueError("the texts do not end where they should")
        column = cls.__new__(cls)
        column._content, column._ends = content, ends
        return column

    @property
    def content(self) -> np.ndarray:
        """uint8, the bytes of all texts."""
        return self._content

    @property
    def ends(self) -> np.ndarray:
        """int64, where each text ends."""
        return self._ends

    @abstractmethod
    def _text(self, value: Value) -> str: ...

    @abstractmethod
    def _value(self, text: str) -> Value: ...

    def __len__(self) -> int:
        return len(self._ends)

    def _at(self, number: int) -> Value:
        start = int(self._ends[number - 1]) if number else 0
        encoded = self._content[start : int(self._ends[number])].tobytes()
        return self._value(encoded.decode("utf-8", "surrogatepass"))

    def __iter__(self) -> Iterator[Value]:
        start = 0
        for first in range(0, len(self), _BLOCK):
            ends = self._ends[first : first + _BLOCK].tolist()
            before = start
            block = self._content[before : ends[-1]].tobytes()
            for end in ends:
                encoded = block[start - before : end - before]
                yield self._value(encoded.decode("utf-8", "surrogatepass"))
                start = end


class Texts(Column[str]):
    """Texts."""

    def _text(self, value: str) -> str:
        return value

    def _value(self, text: str) -> str:
        return text


class OptionalTexts(Column["str | None"]):
    """Texts, or nothing."""

    def _text(self, value: str | None) -> str:
        if value is None:
            return _NOTHING
        return f"={value}"

    def _value(self, text: str) -> str | None:
        if text == _NOTHING:
            return None
        return text[1:]


class Identifiers(Column["int | str | None"]):
    """Ids as `values.identifier` gives them, or nothing."""

    def _text(self, value: int | str | None) -> str:
        if value is None:
            return _NOTHING
        return str(value)

    def _value(self, text: str) -> int | str | None:
        if text == _NOTHING:
            return None
        return identifier(text)


class Sizes(Listed["tuple[int, int] | None"]):
    """(height, width) of pictures, at least 1, or nothing."""

    def __init__(self, sizes: Iterable[tuple[int, int] | None]):
        flat = array("i")
        for size in sizes:
            flat.extend(size or (0, 0))
        self._sizes = np.array(flat, np.int32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._sizes)

    def _at(self, number: int) -> tuple[int, int] | None:
        height, width = self._sizes[number].tolist()
        if not height:
            return None
        return height, width


class Coded(Listed[str]):
    """Texts of which few are different: these once, and a number at each place."""

    def __init__(self, texts: Iterable[str]):
        number_of: dict[str, int] = {}
        codes = array("i")
        for text in texts:
            codes.append(number_of.setdefault(text, len(number_of)))
        self._codes = np.array(codes, np.int32)
        self._different = Texts(number_of)

    def __len__(self) -> int:
        return len(self._codes)

    def _at(self, number: int) -> str:
        return self._different[int(self._codes[number])]
