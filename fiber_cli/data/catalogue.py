"""The data sets of the recipes, from `catalogue.yaml`: what is fetched from where, and what it becomes.

This module loads neither numpy nor torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from fiber_cli.errors import UserError, first_names
from fiber_cli.parsing import parse_yaml
from fiber_cli.text_files import read_text

CATALOGUE = Path(__file__).with_name("catalogue.yaml")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class DataFile:
    """makes: what is there below `data.root` when it is done. serves: what it is fetched for, of a file that nothing
    reads once that is there. url: where it may be fetched directly, None where `by`,
    what a person has to do, is the only way. of: the data set that the files are of, where it is another one. save:
    where the file is kept below the root; unpack: the folder that an archive is unpacked into, None for a file that
    stays as it is; members: which of its files, patterns of names, all where there are none; flat: without their
    folders. bytes, sha256, md5: None where they are not published."""

    makes: tuple[str, ...]
    url: str | None = None
    by: str | None = None
    of: str | None = None
    serves: str | None = None
    save: str | None = None
    unpack: str | None = None
    members: tuple[str, ...] = ()
    flat: bool = False
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None

    @property
    def checksum(self) -> tuple[str, str] | None:
        """Name of the digest and the digest, where one is published."""
        if self.sha256 is not None:
            return "sha256", self.sha256
        return None if self.md5 is None else ("md5", self.md5)


@dataclass(frozen=True)
class Check:
    """entry: of a recipe, with paths below the root; count: the published number of samples, None where not known."""

    entry: Mapping[str, Any]
    count: int | None


@dataclass(frozen=True)
class DataSet:
    """A data set. recipes: those whose `data.root` is its own folder."""

    name: str
    title: str
    home: str
    licence: str
    files: tuple[DataFile, ...]
    checks: tuple[Check, ...]
    recipes: tuple[str, ...] = field(default=())

    def has(self, path: str) -> bool:
        """Whether a path below the root is what the data set itself makes, or lies in it, or holds it."""
        wanted = PurePosixPath(path)
        for file in self.files:
            if file.of is not None:
                continue
            for made in map(PurePosixPath, file.makes):
                if wanted == made or made in wanted.parents or wanted in made.parents:
                    return True
        return False

    @property
    def folder(self) -> str | None:
        """The folder that all its own files lie in, below the root; None where there is no such one."""
        folders = set()
        for made in self.own_files:
            first, separator, _ = made.partition("/")
            folders.add(first if separator else None)
        return folders.pop() if len(folders) == 1 else None

    @property
    def own_files(self) -> list[str]:
        """What it makes itself, paths below the root."""
        made: list[str] = []
        for file in self.files:
            if file.of is None:
                made += file.makes
        return made


class Layout(NamedTuple):
    """Where the paths of a data set lie. root: the recipes' `data.root`, or, where `own` names it, the data set's own
    folder, beside which those of others lie."""

    root: Path
    own: str | None = None

    def place(self, path: str) -> Path:
        """A path of the catalogue here."""
        first, _, rest = path.partition("/")
        if self.own is None or first == ".":
            return self.root / path
        if first == self.own:
            return self.root / rest
        return self.root.parent / path


def layout(data_set: DataSet, root: Path) -> Layout:
    """Of a data set below a root, which is taken for its own folder where its files lie there and not below it."""
    own = data_set.folder
    if own is None or any((root / made).exists() for made in data_set.own_files):
        return Layout(root)
    inside = Layout(root, own)
    is_own = any(inside.place(made).exists() for made in data_set.own_files)
    return inside if is_own else Layout(root)


@cache
def catalogue() -> Mapping[str, DataSet]:
    """The data sets by name."""
    content = parse_yaml(read_text(CATALOGUE), str(CATALOGUE))
    return {name: _data_set(name, entry) for name, entry in content.items()}


def _data_set(name: str, entry: Mapping[str, Any]) -> DataSet:
    files = []
    for listed in entry["files"]:
        members = tuple(listed.get("members", ()))
        files.append(DataFile(**listed | {"makes": tuple(listed["makes"]), "members": members}))
    checks = []
    for listed in entry["checks"]:
        settings = {key: value for key, value in listed.items() if key != "count"}
        checks.append(Check(settings, listed["count"]))
    about = entry["title"], entry["home"], entry["licence"]
    return DataSet(name, *about, tuple(files), tuple(checks), tuple(entry.get("recipes", ())))


def data_sets(names: Sequence[str]) -> list[DataSet]:
    """The data sets of these names, each once; `UserError` for a name that is none."""
    known = catalogue()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"unknown data set {first_names(unknown)}; known are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]


def size_in_words(count: int | None) -> str:
    """Bytes as people say them."""
    if count is None:
        return UNKNOWN
    if count < 1000:
        return f"{count} bytes"
    size = count / 1000
    for unit in ("KB", "MB"):
        if size < 1000:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
