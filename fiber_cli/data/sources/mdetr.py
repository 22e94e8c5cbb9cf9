"""MDETR's form of COCO's JSON: captions whose phrases have boxes, the RefCOCO family too."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fiber_cli.data.coco_json import Entry, file_name, image_size, read_coco_json
from fiber_cli.data.files import expecting
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.ragged import Ragged
from fiber_cli.data.records import PhraseBoxes
from fiber_cli.data.source import PhraseSource
from fiber_cli.data.sources.format import Format
from fiber_cli.settings import SourceSettings, option

_WANTED = "a grounding JSON in MDETR's form"


@dataclass(frozen=True)
class MdetrSettings(SourceSettings):
    """Captions with boxes for phrases in MDETR's JSON form, the RefCOCO family too."""

    kind: Literal["mdetr"]
    json: str = option("The JSON file.", path=True)
    images: str | dict[str, Any] = option("Image folder, or a folder for each `data_source`.", path=True)
    refers: bool | None = option("Captions are expressions for one box each; null = as the task has it.", None)


class MdetrSource(FolderSource, PhraseSource):
    """Images with `caption`, annotations with `tokens_positive`, a list of spans.

    The same picture may come in several entries, one for each caption or, as in the RefCOCO family, expression.
    images: the folder, or folders by the entries' `data_source`. refers: see `PhraseSource`.
    """

    def __init__(self, json: str | Path, images: str | Path | Mapping[str, str], refers: bool | None = None):
        self.refers = refers
        file = read_coco_json(json, _WANTED)
        self.dropped = file.dropped
        folder = _common_folder(images)
        files: list[str] = []
        self._captions: list[str] = []
        spans: list[list[tuple[int, int, int]]] = []
        for number, (image, annotations) in enumerate(zip(file.images, file.annotations, strict=True)):
            with expecting(f"{json}, images[{number}] and its annotations", _WANTED):
                files.append(_path(image, images, folder))
                self._captions.append(image["caption"])
                spans.append(_spans(image["caption"], annotations))
        self._sizes = [image_size(image) for image in file.images]
        boxes = [[annotation["box"] for annotation in of_image] for of_image in file.annotations]
        self._boxes = Ragged(boxes, (4,), np.float32)
        self._spans = Ragged(spans, (3,), np.int32)
        keys = [str(image["id"]) for image in file.images]
        super().__init__(Path(json).stem, folder, files, keys)

    def regions(self, i: int) -> PhraseBoxes:
        boxes = self._boxes[i]
        spans: list[list[tuple[int, int]]] = [[] for _ in boxes]
        for number, start, end in self._spans[i].tolist():
            spans[number].append((start, end))
        return PhraseBoxes(self._captions[i], boxes, spans, self._sizes[i])


MDETR = Format(kind="mdetr", settings=MdetrSettings, source=MdetrSource)


def _common_folder(images: str | Path | Mapping[str, str]) -> str | Path:
    if isinstance(images, Mapping):
        return os.path.commonpath([os.path.abspath(folder) for folder in images.values()])
    return images


def _path(image: Entry, images: str | Path | Mapping[str, str], folder: str | Path) -> str:
    """The image's path below `folder`."""
    if isinstance(images, Mapping):
        above = os.path.relpath(images[image["data_source"]], folder)
        return os.path.join(above, file_name(image))
    return file_name(image)


def _spans(caption: str, annotations: list[Entry]) -> list[tuple[int, int, int]]:
    """(number of the annotation, start, end) of every span; ValueError for one outside the caption."""
    spans = []
    for number, annotation in enumerate(annotations):
        for start, end in annotation["tokens_positive"]:
            span = number, int(start), int(end)
            if not 0 <= span[1] < span[2] <= len(caption):
                raise ValueError("a span of tokens_positive is not inside the caption")
            spans.append(span)
    return spans
