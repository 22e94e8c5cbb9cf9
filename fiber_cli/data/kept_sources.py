"""Sources as their files made them, kept in arrays that the processes of a machine share.

Files of millions of annotations are read once; from then on a source is opened by mapping a file into memory, by every
rank and every worker. What is kept belongs to the settings, the files' names, sizes and times of change, and the
program that has read them; anything else is read anew. What was said of the files is said again.
"""

import hashlib
import inspect
import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fiber_cli.data.cache_folder import cache_folders, digest, made_by_one
from fiber_cli.data.coco_json import CocoCategory
from fiber_cli.data.columns import Coded, Identifiers, OptionalTexts, Sizes, Texts
from fiber_cli.data.file_records import recorded, say_once
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.mapped_file import read_mapped, write_mapped
from fiber_cli.data.object_source import ObjectTable
from fiber_cli.data.ragged import Ragged
from fiber_cli.errors import WRONG_CONTENT
from fiber_cli.outputs import write_problem
from fiber_cli.parsing import parse_json
from fiber_cli.remote_paths import is_remote
from fiber_cli.settings import SourceSettings, paths_in
from fiber_cli.text_files import dump_json

#: Smaller files are read each time: that takes a moment.
LEAST_BYTES, LEAST_FILES = 16 << 20, 2000
#: What a source may be made of, beside JSON's values, tuples, sets, paths and arrays.
_CLASSES: tuple[type[Any], ...] = (CocoCategory, Coded, Identifiers, ObjectTable, OptionalTexts, Ragged, Sizes, Texts)
_CLASS_OF = {each.__name__: each for each in _CLASSES}


class _Kept(NamedTuple):
    """The file of a source, its key, and what stands for the state of all that it was made of."""

    places: list[Path]
    stamp: str


def open_kept(kind: type[FolderSource], settings: SourceSettings) -> FolderSource:
    """The source of an entry of a recipe, from what is kept of it or from its files, of which it is kept then.
    `UserError` as of the source's constructor."""
    arguments = settings.arguments()
    with recorded(aloud=False):  # it is said where they are read
        files = list(kind.files_read(**arguments))
    stamps = _stamps(files)
    if stamps is None:
        return kind(**arguments)
    kept = _Kept(_places(settings, Path(files[0])), digest(_program(kind), *stamps))
    source = _restored(kind, kept)
    if source is not None:
        return source
    with made_by_one(kept.places[0], f"{files[0]}: another process is reading it"):
        source = _restored(kind, kept)  # another process has read the files meanwhile
        if source is not None:
            return source
        with recorded() as said:
            source = kind(**arguments)
        is_kept = _keep(source, kept, said)
    if not is_kept:
        return source
    with recorded(aloud=False):  # it has just been said
        return _restored(kind, kept) or source


def _places(settings: SourceSettings, file: Path) -> list[Path]:
    """Where a source of these settings may be kept. The name is that of the settings, so that a change of the files
    replaces what is kept."""
    paths = [os.path.abspath(path) for name in settings.path_names() for path in paths_in(vars(settings)[name])]
    name = f"annotations-{digest(settings.kind, repr(sorted(settings.arguments().items())), *paths)[:24]}.safetensors"
    return [folder / name for folder in cache_folders(file.absolute().parent)]


def _stamps(files: list[str | Path]) -> list[str] | None:
    """What changes when a file does, of all; None where they are small, or one of them lies at an address."""
    if any(is_remote(str(file)) for file in files):
        return None
    stamps = []
    total = 0
    for file in map(Path, files):
        try:
            state = file.stat()
        except (OSError, ValueError):
            stamps.append(f"{file}|absent")
            continue
        if not file.is_dir():
            total += state.st_size
        # The second time tells a file that was given its former time again.
        stamps.append(f"{file.absolute()}|{state.st_size}|{state.st_mtime_ns}|{state.st_ctime_ns}")
    if total < LEAST_BYTES and len(files) < LEAST_FILES:
        return None
    return stamps


@cache
def _program(kind: type[FolderSource]) -> str:
    """Of the code that reads files: that of this folder, and the source's own."""
    digest = hashlib.sha256(inspect.getsource(inspect.getmodule(kind) or kind).encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _restored(kind: type[FolderSource], kept: _Kept) -> FolderSource | None:
    """What is kept, as the source; None where nothing is that belongs to the files as they are."""
    for place in kept.places:
        try:
            file = read_mapped(place)
            if file.metadata["stamp"] != kept.stamp:
                continue
            described = parse_json(file.metadata["source"])
            state = _State(file.arrays).value(described["fields"])
            said = [str(line) for line in described["said"]]
        except (*WRONG_CONTENT, OSError):
            continue  # not there yet, or damaged: made again from the files
        source = kind.__new__(kind)
        source.__dict__.update(state)
        if source.has_images():  # else the reader says what is wrong, or finds them elsewhere
            for line in said:
                say_once(line)
            return source
    return None


def _keep(source: FolderSource, kept: _Kept, said: list[str]) -> bool:
    """Whether the source is kept now."""
    state = _State({})
    try:
        described = {"fields": state.described(vars(source)), "said": said}
    except _NotKept:
        return False
    metadata = {"stamp": kept.stamp, "source": dump_json(described)}
    place = kept.places[0]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_mapped(place, state.arrays, metadata)
    except OSError as error:
        say_once(f"{place}: annotations cannot be kept between runs ({write_problem(error) or error})")
        return False
    return True


class _NotKept(Exception):
    """A value of a type that is not known here, as formats from outside may have."""


class _State:
    """Values as JSON, with numbers of arrays in it. arrays: by their numbers as text."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays
        self._seen: dict[int, str] = {}

    def described(self, value: Any) -> Any:
        """JSON's values as they are, lists as lists, all else as an object with one key, which says what it is. Raises
        `_NotKept`."""
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind is list:
            return [self.described(each) for each in value]
        if kind is dict:
            return {"dict": [[self.described(key), self.described(each)] for key, each in value.items()]}
        if kind is tuple:
            return {"tuple": [self.described(each) for each in value]}
        if kind is frozenset:
            return {"set": [self.described(each) for each in sorted(value)]}
        if isinstance(value, Path):
            return {"path": str(value)}
        if isinstance(value, np.ndarray):
            return {"array": self._array(value)}
        if kind not in _CLASSES:
            raise _NotKept(kind.__name__)
        fields = value._asdict() if issubclass(kind, tuple) else vars(value)
        return {kind.__name__: self.described(dict(fields))}

    def _array(self, value: np.ndarray) -> str:
        """The number of an array, which is there once although several share it."""
        number = self._seen.setdefault(id(value), str(len(self._seen)))
        self.arrays[number] = np.ascontiguousarray(value)
        return number

    def value(self, described: Any) -> Any:
        """The value of what `described` gave. Raises one of `WRONG_CONTENT`."""
        if isinstance(described, list):
            return [self.value(each) for each in described]
        if not isinstance(described, dict):
            return described
        [(kind, content)] = described.items()
        match kind:
            case "dict":
                return {self.value(key): self.value(each) for key, each in content}
            case "tuple":
                return tuple(self.value(each) for each in content)
            case "set":
                return frozenset(self.value(each) for each in content)
            case "path":
                return Path(content)
            case "array":
                return self.arrays[content]
        made: Any = _CLASS_OF[kind]
        fields = self.value(content)
        if issubclass(made, tuple):
            return made(**fields)
        value = made.__new__(made)
        value.__dict__.update(fields)
        return value
