"""The records of files of annotations: single bad ones are left out and named, a file with many of them is refused."""

import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from fiber_cli.data.files import read_lines
from fiber_cli.data.json_lists import ListInFile
from fiber_cli.data.source import BadSample
from fiber_cli.errors import WRONG_CONTENT, UserError, first_names
from fiber_cli.printing import say

Value = TypeVar("Value")
Id = TypeVar("Id", bound=Hashable)
#: What tells a record's place, a number or a text.
Where = TypeVar("Where")

#: A file is refused where more than one record in a hundred is bad, but not for so few.
_MOST_PER_HUNDRED = 1
_HANDFUL = 5
#: Nor for one record of so many in a short list.
_SHORT = 3
#: How many of the records that are left out are named.
_NAMED = 3
_ONCE_EACH = "each must come once, or it is not known which is meant"


class Ownerless(ValueError):
    """A record is of something that the file does not have. owner: what that is, such as "image 3"."""

    def __init__(self, owner: str):
        super().__init__(f"there is no {owner}")
        self.owner = owner


class FileRecords:
    """Reads the records of a file.

    A record for which the reading function raises one of `WRONG_CONTENT` or `BadSample` is left out; where the list
    ends, the first of them are named on standard error. More than one in a hundred, and more than five (in a short
    list: than a third), refuse the file with `UserError`, as every one does if `strict`. All records of one `Ownerless`
    owner are together one bad record. A `UserError` of the reading function is one of the whole file.

    wanted: what the file is to be, form: what it looks like, both for messages. left_out: (place, reason) of the bad
    records of all lists read so far.
    """

    def __init__(self, path: str | Path, wanted: str, form: str = "", *, strict: bool = False, lenient: bool = False):
        self.path, self.wanted, self.form, self.strict, self.lenient = path, wanted, form, strict, lenient
        self.left_out: list[tuple[str, str]] = []

    def entries(self, content: Any, what: str) -> list[Any] | ListInFile:
        """The list `what` of a JSON object; `UserError` where there is none."""
        entries = content.get(what) if isinstance(content, dict) else None
        if not isinstance(entries, list | ListInFile):
            raise self._refusal(f"has no list {what!r}")
        return entries

    def each(
        self, what: str, entries: Iterable[Any], read: Callable[[Any], Value], owners: int | None = None
    ) -> Iterator[tuple[int, Value]]:
        """Number and value of the good records of a list; the place of one is `what[number]`. owners: how many the file
        has, where `read` raises `Ownerless`: as many of them may be missing as records be bad in a list of them."""
        return self._each(enumerate(entries), read, what + "[{}]", what, owners)

    def lines(self, read: Callable[[bytes], Value]) -> Iterator[tuple[int, Value]]:
        """Number, from 1, and value of the good lines, empty ones apart."""
        return self._each(read_lines(self.path, self.wanted), read, "line {}", "lines")

    def placed(
        self, what: str, entries: Iterable[tuple[str, Any]], read: Callable[[Any], Value]
    ) -> Iterator[tuple[str, Value]]:
        """Place and value of the good records of many small files, which come with their places."""
        return self._each(entries, read, "{}", what)

    def _each(
        self,
        numbered: Iterable[tuple[Where, Any]],
        read: Callable[[Any], Value],
        place: str,
        what: str,
        owners: int | None = None,
    ) -> Iterator[tuple[Where, Value]]:
        bad: list[tuple[str, str]] = []
        of_owner: dict[str, list[str]] = {}  # places
        total = 0
        for number, entry in numbered:
            total += 1
            try:
                value = read(entry)
            except UserError:
                raise
            except Ownerless as error:
                of_owner.setdefault(error.owner, []).append(place.format(number))
            except BadSample as error:
                bad.append((place.format(number), str(error)))
            except WRONG_CONTENT as error:
                bad.append((place.format(number), f"{type(error).__name__}: {error}"))
            else:
                yield number, value
        for owner, places in of_owner.items():
            bad.append((places[0], f"there is no {owner}, named by {len(places)} of the {what}"))
        most = _most_bad(total)
        if owners is not None and len(of_owner) > _most_bad(owners + len(of_owner)):
            most = 0
        self._judge(bad, total, what, most)

    def _judge(self, bad: list[tuple[str, str]], total: int, what: str, most: int) -> None:
        """`UserError` for more bad records than `most`, else a word about them."""
        if not bad:
            return
        if self.strict or (len(bad) > most and not self.lenient):
            place, reason = bad[0]
            others = f", {len(bad)} of {total:,} such" if len(bad) > 1 else ""
            raise self._refusal(f"see {place} ({reason}){others}")
        self.left_out.extend(bad)
        say_once(f"{self.path}: {left_out_in_words(bad, total, what)}")

    def _refusal(self, reason: str) -> UserError:
        message = f"{self.path}: not {self.wanted}, {reason}"
        return UserError(f"{message}; wanted is {self.form}" if self.form else message)


def left_out_in_words(bad: list[tuple[str, str]], total: int, what: str) -> str:
    """How many records are left out, and why the first of them."""
    named = first_names([f"{place} ({reason})" for place, reason in bad], _NAMED)
    verb = "is" if len(bad) == 1 else "are"
    return f"{len(bad)} of {total:,} {what} {verb} left out: {named}"


#: Where the lines go that are recorded, and whether they are said.
_RECORDS: ContextVar[tuple[list[str], bool] | None] = ContextVar("records", default=None)


def say_once(line: str) -> None:
    """A line on standard error; of several ranks, which read the same files, the first says it."""
    record = _RECORDS.get()
    if record is not None:
        lines, aloud = record
        lines.append(str(line))
        if not aloud:
            return
    if os.environ.get("RANK", "0") == "0":
        say(line)


@contextmanager
def recorded(*, aloud: bool = True) -> Iterator[list[str]]:
    """Gives the lines that `say_once` is given inside, on every rank. aloud: whether it says them."""
    lines: list[str] = []
    token = _RECORDS.set((lines, aloud))
    try:
        yield lines
    finally:
        _RECORDS.reset(token)


def _most_bad(total: int) -> int:
    """How many bad records a list of so many may have."""
    return max(total * _MOST_PER_HUNDRED // 100, min(_HANDFUL, total // _SHORT))


class Once:
    """What may come once in a file, such as an id; `add` raises `UserError` where it comes again."""

    def __init__(self, path: str | Path, what: str, where: str):
        self.path, self.what, self.where = path, what, where
        self._seen: set[Hashable] = set()

    def add(self, value: Id) -> Id:
        """The value itself."""
        if value in self._seen:
            raise UserError(f"{self.path}: {self.what} {value!r} comes twice in {self.where}; {_ONCE_EACH}")
        self._seen.add(value)
        return value

    def __contains__(self, value: Hashable) -> bool:
        return value in self._seen

    def __len__(self) -> int:
        return len(self._seen)
