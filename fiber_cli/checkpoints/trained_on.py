"""Which data set an entry of a recipe is of, as far as the places and names of its files tell."""

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fiber_cli.checkpoints.run_files import RECIPE
from fiber_cli.data.sources import FORMATS, source_format
from fiber_cli.parsing import parse_yaml
from fiber_cli.settings import SourceSettings
from fiber_cli.text_files import read_text

#: What tells a data set's name: the words of a file or folder that are neither a split nor common to many sets.
DataName = frozenset[str]


class Data(NamedTuple):
    """The data set of an entry. folder: where its name is from, or where its file lies if that has the name; file: its
    first, or the folder that an entry names in place of files, which is its folder too. Both are without symbolic
    links, and empty for built-in scenes."""

    name: DataName
    folder: str
    file: str


class Seen(IntEnum):
    """How it is known that data were trained on: not at all; by their name alone; by name and folder; by the file."""

    NOT = 0
    BY_NAME = 1
    BY_FOLDER = 2
    BY_FILE = 3


BUILT_IN: DataName = frozenset({"built-in scenes"})
DRAWN_SCENES = Data(BUILT_IN, "", "")
_SPLITS = frozenset({"train", "val", "valid", "validation", "trainval", "restval", "minival", "dev", "test"})
_SPLITS |= {"testa", "testb", "fewshot", "shot", "seed"}
#: Folders that stand between a data set's own and its files.
_FOLDERS = _SPLITS | {"annotation", "annotations", "caption", "captions", "images", "json", "jsons", "labels"}
_FOLDERS |= {"export", "generic", "large", "raw"}  # of ODinW's archive
# What labelling tools and their users call any export.
_FOLDERS |= {"annotated", "data", "dataset", "datasets", "default", "exports", "gt", "instances", "job", "label"}
_FOLDERS |= {"out", "output", "outputs", "project", "result", "results", "task", "tmp", "yolo"}
_FILES = _FOLDERS | {"image", "name", "questions", "final", "finetune"}
_FILES |= {"background", "corrected", "inserted", "without"}
_FILES |= {"info", "keypoints", "panoptic", "person", "stuff"}
#: A data set and, far more often, a form of files: the data set where the file is called as one of COCO's own.
_COCO = "coco"
_FILES_OF_COCO = re.compile(r"dataset_coco|(train|val|test|unlabeled)[a-z_-]*20(14|17)")


def data_of(settings: SourceSettings) -> Data:
    """The data set that an entry is of. Its name: the words of its first file's name, or of the first folder above it
    that has some: {"lvis", "v1"} of lvis_v1_train.json, {"cells"} of cells/annotations/instances_val.json."""
    return _data(settings.kind, {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)})


def trained_on(run_dir: Path) -> tuple[Data, ...]:
    """The data sets of the training entries in a run's recipe.yaml; none where it cannot be read."""
    try:
        recipe = parse_yaml(read_text(run_dir / RECIPE))
        entries = recipe["data"]["train"]
        return tuple(_data(entry["kind"], entry) for entry in entries if entry["kind"] in FORMATS)
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return ()


def all_seen(asked: Iterable[Data], trained: Iterable[Data]) -> Seen:
    """How it is known that all of the data sets that are asked for were trained on: as of the least known one."""
    known = list(trained)
    return min((max((_alike(data, other) for other in known), default=Seen.NOT) for data in asked), default=Seen.NOT)


def _alike(data: Data, other: Data) -> Seen:
    if data.file == other.file:
        return Seen.BY_FILE
    if data.name != other.name:
        return Seen.NOT
    is_there = data.folder == other.folder or _lies_in(data, other) or _lies_in(other, data)
    return Seen.BY_FOLDER if is_there else Seen.BY_NAME


def _lies_in(data: Data, other: Data) -> bool:
    """Whether the file of a data set lies in the folder that an entry of another names in place of files."""
    return other.file != "" and Path(other.file) in Path(data.file).parents


def _data(kind: str, entry: Mapping[str, Any]) -> Data:
    paths = source_format(kind).settings.path_names()
    return _data_of_file(entry.get(paths[0])) if paths else DRAWN_SCENES


def _data_of_file(value: Any) -> Data:
    """Of a path, or of the first of several."""
    if isinstance(value, list | tuple):
        value = value[0] if value else ""
    file = Path(str(value)).expanduser().absolute()
    name, folder = _name_and_folder(file)
    if file.is_dir():
        folder = file  # such as labels of one set in several forms, a folder each
    return Data(name, os.path.realpath(folder), os.path.realpath(file))


def _name_and_folder(file: Path) -> tuple[DataName, Path]:
    """The words that tell a data set's name, and the folder that has them or whose file has them; without such words
    the path of the file's folder stands for a name."""
    forms = frozenset() if _FILES_OF_COCO.search(file.name.lower()) else frozenset({_COCO})
    words = _words(file.name, _FILES | forms)
    if words:
        return words, file.parent
    for folder in file.parents:
        words = _words(folder.name, _FOLDERS | forms)
        if words:
            return words, folder
    return frozenset({str(file.parent)}), file.parent


def _words(name: str, common: frozenset[str]) -> DataName:
    """The words of a name up to its first full stop, but for common ones, with a number or alone, and sizes."""
    words = set()
    for word in re.split(r"[^a-z0-9+]+", name.lower().split(".")[0]):
        if word.strip("0123456789x") not in common | {""}:
            words.add(word)
    return frozenset(words)
