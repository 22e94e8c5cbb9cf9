"""Which data set an entry of a recipe is of, as far as the names of its files tell."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from fiber_cli.data.sources import FORMATS, source_format
from fiber_cli.settings import SourceSettings

#: What tells a data set's name: the words of a file or folder that are neither a split nor common to many sets.
DataName = frozenset[str]

BUILT_IN: DataName = frozenset({"built-in scenes"})
_SPLITS = frozenset({"train", "val", "valid", "validation", "trainval", "restval", "minival", "dev", "test"})
_SPLITS |= {"testa", "testb", "fewshot", "shot", "seed"}
#: Folders that stand between a data set's own and its files.
_FOLDERS = _SPLITS | {"annotation", "annotations", "caption", "captions", "images", "json", "jsons", "labels"}
_FOLDERS |= {"export", "generic", "large", "raw"}  # of ODinW's archive
_FILES = _FOLDERS | {"data", "dataset", "image", "instances", "name", "questions", "final", "finetune"}
_FILES |= {"background", "corrected", "inserted", "without"}


def data_name(settings: SourceSettings) -> DataName:
    """The data set that an entry is of: the words of its first file's name, or of the first folder above it that has
    some: {"lvis", "v1"} of lvis_v1_train.json, {"cells"} of cells/annotations/instances_val.json."""
    return _name(settings.kind, {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)})


def trained_on(run_dir: Path) -> tuple[DataName, ...]:
    """The data sets of the training entries in a run's recipe.yaml; none where it cannot be read."""
    try:
        recipe = yaml.safe_load((run_dir / "recipe.yaml").read_text(encoding="utf-8"))
        entries = recipe["data"]["train"]
        return tuple(_name(entry["kind"], entry) for entry in entries if entry["kind"] in FORMATS)
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return ()


def all_seen(sources: Iterable[SourceSettings], names: Iterable[DataName]) -> bool:
    """Whether every one of the sources is of one of the data sets."""
    known = set(names)
    return all(data_name(source) in known for source in sources)


def _name(kind: str, entry: Mapping[str, Any]) -> DataName:
    for setting in dataclasses.fields(source_format(kind).settings):
        if setting.metadata.get("path"):
            return _name_of_file(entry.get(setting.name))
    return BUILT_IN


def _name_of_file(value: Any) -> DataName:
    """Of a path, or of the first of several."""
    if isinstance(value, list | tuple):
        value = value[0] if value else ""
    file = Path(str(value)).expanduser().absolute()
    words = _words(file.name, _FILES)
    folders = iter(file.parents)
    while not words:
        folder = next(folders, None)
        if folder is None:
            return frozenset({str(file.parent)})
        words = _words(folder.name, _FOLDERS)
    return words


def _words(name: str, common: frozenset[str]) -> DataName:
    """The words of a name up to its first full stop, but for common ones, with a number or alone, and sizes."""
    words = set()
    for word in re.split(r"[^a-z0-9+]+", name.lower().split(".")[0]):
        if word.strip("0123456789x") not in common | {""}:
            words.add(word)
    return frozenset(words)
