"""Ultralytics' `data.yaml`: the names of the classes, and where the pictures of each split lie."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from fiber_cli.data.coco_json import check_names
from fiber_cli.data.file_records import say_once
from fiber_cli.data.files import read_bytes
from fiber_cli.data.labelled_set import SPLIT_NAMES, pictures_in, split_names
from fiber_cli.data.values import listed, path_text, some_text, whole_number
from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.parsing import parse_yaml
from fiber_cli.text_files import NotText, decode_text, lines_of, read_text

#: Endings of its name.
YAML_SUFFIXES = (".yaml", ".yml")
_WANTED = "Ultralytics' data.yaml, with `names` and the folders of the splits"


class DataYaml(NamedTuple):
    """names: by the classes' numbers. splits: name in the file → its folders, and files of lists. folder: what these
    are relative to. has_keypoints: whether lines of labels have points behind their boxes."""

    file: Path
    folder: Path
    names: list[str]
    splits: Mapping[str, Sequence[str]]
    has_keypoints: bool

    def pictures(self, split: str) -> list[Path]:
        """The pictures of a split, in its own order, each once, also those that a list names and that are not there.
        `UserError` for a split that the file does not have, and for folders and lists that are not there."""
        given = self._name_of(split)
        pictures: list[Path] = []
        for place in self.splits[given]:
            pictures += self._pictures_at(given, place)
        if not pictures:
            raise UserError(f"{self.file}: {given}: {', '.join(self.splits[given])} has no pictures")
        return list(dict.fromkeys(pictures))

    def _name_of(self, split: str) -> str:
        """What the file calls a split."""
        for name in split_names(split):
            if name in self.splits:
                return name
        known = ", ".join(self.splits) or "none"
        raise UserError(f"{self.file}: has no split {split!r}; it has {known}")

    def _pictures_at(self, split: str, place: str) -> Iterator[Path]:
        candidates = list(self._places(place))
        found = next((path for path in candidates if path.exists()), None)
        if found is None:
            looked = " or ".join(map(str, candidates))
            raise UserError(f"{self.file}: {split}: there is no {looked}; correct `{split}`, or `path`, of the file")
        if found.is_dir():
            yield from pictures_in(found)
            return
        for line in lines_of(read_text(found)):
            if line.strip():
                yield self._listed(line.strip(), found)

    def _places(self, place: str) -> Iterator[Path]:
        """Where a path of the file may lead. Roboflow's begin with `../`, one folder too high."""
        yield Path(os.path.normpath(self.folder / place))
        parts = PurePosixPath(place).parts
        if parts[:1] == ("..",):
            yield Path(os.path.normpath(self.folder.joinpath(*parts[1:])))

    def _listed(self, line: str, file: Path) -> Path:
        """A picture of a list: from the list's own folder, or from that of the data set."""
        beside = Path(os.path.normpath(file.parent / line))
        below = Path(os.path.normpath(self.folder / line))
        return below if below.is_file() and not beside.is_file() else beside


def read_data_yaml(file: str | Path) -> DataYaml:
    """What the file says. `UserError` for a file of another form, and for names that are the same words."""
    file = Path(file)
    try:
        content = parse_yaml(decode_text(read_bytes(file, _WANTED)), str(file))
    except NotText as error:
        raise UserError(f"{file}: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML ({' '.join(str(error).split())}); wanted is {_WANTED}") from None
    try:
        names = _names(content)
        splits = _splits(content)
    except WRONG_CONTENT as error:
        raise UserError(f"{file}: not {_WANTED} ({error})") from None
    check_names(file, names)
    return DataYaml(file, _folder(file, content, splits), names, splits, content.get("kpt_shape") is not None)


def keys_of_data_yaml(file: Path) -> set[str]:
    """`names` and the keys of the file that have a value; none where it is another file, without `names`."""
    if not file.is_file() or file.suffix not in YAML_SUFFIXES:
        return set()
    try:
        content = parse_yaml(read_text(file), str(file))
    except (UserError, NotText, OSError, yaml.YAMLError):
        return set()
    if not isinstance(content, dict) or "names" not in content:
        return set()
    return {"names"} | {name for name, value in content.items() if value}


def _names(content: Any) -> list[str]:
    """A list, or a mapping from the classes' numbers, which must be 0, 1, 2 and so on."""
    if not isinstance(content, dict):
        raise TypeError("it is no mapping")
    names = content.get("names")
    if isinstance(names, dict):
        by_number = {}
        for number, name in names.items():
            by_number[whole_number(number, "a number of names")] = name
        if sorted(by_number) != list(range(len(by_number))):
            raise ValueError(f"the numbers of names must be 0 to {len(by_number) - 1}, each once")
        names = [by_number[number] for number in range(len(by_number))]
    elif names is None:
        raise ValueError("it has no `names`; detection needs them")
    read = []
    for name in listed(names, "names"):
        if isinstance(name, int):
            name = str(name)
        read.append(some_text(name, "a name"))
    if not read:
        raise ValueError("`names` is empty; detection needs them")
    count = content.get("nc")
    if count is not None and whole_number(count, "nc") != len(read):
        raise ValueError(f"nc is {count}, and there are {len(read)} names")
    return read


def _splits(content: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    splits: dict[str, Sequence[str]] = {}
    for names in SPLIT_NAMES.values():
        for name in names:
            value = content.get(name)
            if value:
                places = value if isinstance(value, list) else [value]
                splits[name] = [path_text(place, name) for place in places]
    if not splits:
        raise ValueError("it names no train, val or test")
    return splits


def _folder(file: Path, content: Mapping[str, Any], splits: Mapping[str, Sequence[str]]) -> Path:
    """What the paths are relative to: `path`, from the file's own folder; where that is not there, as in a file that
    came with its data from another machine, the file's own folder, which is told."""
    home = Path(os.path.abspath(file.parent))
    if not content.get("path"):
        return home
    named = Path(os.path.normpath(home / Path(path_text(content["path"], "path")).expanduser()))
    if named.is_dir():
        return named
    places: list[str] = []
    for of_split in splits.values():
        places.extend(of_split)
    if not any((home / place).exists() for place in places):
        raise UserError(f"{file}: path: there is no folder {named}, and none of {', '.join(places)} lies in {home}")
    say_once(f"{file}: path: there is no folder {named}; its splits are taken from {home}")
    return home
