"""The files that sources read beside their pictures, which the outputs of the same command must not replace."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fiber_cli.data.exclude_files import exclude_files
from fiber_cli.data.label_folder import find_labels
from fiber_cli.data.shard_paths import find_shards
from fiber_cli.data.sources.folder import LabelFolderSettings
from fiber_cli.data.sources.voc import VocSettings
from fiber_cli.data.voc_labels import annotation_files
from fiber_cli.errors import UserError
from fiber_cli.settings import SourceSettings, path_settings

#: Settings that name files by patterns → what finds them.
_FINDERS: Mapping[str, Callable[[Any], list[str]]] = {"shards": find_shards, "exclude": exclude_files}


def source_files(sources: Iterable[SourceSettings]) -> Iterator[Path]:
    """The files that the settings name, those of folders of annotations and the shards among them."""
    for settings in sources:
        for name in path_settings(type(settings)):
            if name == "folder" and isinstance(settings, LabelFolderSettings | VocSettings):
                yield from _label_files(settings)
            elif name != "images":
                yield from _files_of(name, vars(settings)[name])


def _label_files(settings: LabelFolderSettings | VocSettings) -> Iterator[Path]:
    """Those of labels in a folder, which may hold runs and results, too; what is not there is told by the source."""
    if isinstance(settings, VocSettings):
        yield from annotation_files(Path(settings.folder))
        return
    try:
        found = find_labels(settings.folder, settings.split, settings.form, json=settings.json, images=settings.images)
    except UserError:
        return
    yield from annotation_files(found.file) if found.file.is_dir() else [found.file]


def _files_of(name: str, value: Any) -> Iterator[Path]:
    """The files of one setting; what is not there is told by the source."""
    if value is None:
        return
    if name in _FINDERS:
        try:
            yield from map(Path, _FINDERS[name](value))
        except UserError:
            return
    elif os.path.isdir(value):
        for parent, _, names in os.walk(value):
            for file in names:
                yield Path(parent, file)
    else:
        yield Path(value)
