"""MDETR's form of COCO's JSON: captions whose phrases have boxes, the RefCOCO family too."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fiber_cli.data.coco_json import CocoImage, Entry, file_name, read_coco_json
from fiber_cli.data.columns import Sizes, Texts
from fiber_cli.data.folder import FolderSource, in_layout_on_disk
from fiber_cli.data.image_names import read_coco_numbers
from fiber_cli.data.masks import Box
from fiber_cli.data.object_columns import CocoObject
from fiber_cli.data.ragged import Ragged
from fiber_cli.data.records import PhraseBoxes, Size
from fiber_cli.data.source import PhraseSource, Source
from fiber_cli.data.sources.format import Format
from fiber_cli.settings import SourceSettings, option

_WANTED = "a grounding JSON in MDETR's form"
#: `dataset_name` of the images → whether their captions are expressions for one box each.
_REFERS = {"refcoco": True, "refcoco+": True, "refcocog": True, "refclef": True, "flickr": False, "flickr30k": False}

_SCORED = {
    True: "all are scored as referring expressions",
    False: "all are scored as captions with phrases",
    None: "all are scored as the checkpoint's task has it",
}


@dataclass(frozen=True)
class MdetrSettings(SourceSettings):
    """Captions with boxes for phrases in MDETR's JSON form, the RefCOCO family too."""

    kind: Literal["mdetr"]
    json: str = option("The JSON file.", path=True)
    images: str | dict[str, Any] = option("Image folder, or a folder for each `data_source`.", path=True)
    refers: bool | None = option(
        "Captions are expressions for one box each; null = as most `dataset_name`s say, else as the task has it.", None
    )
    image_data: str | None = option(
        "Visual Genome's image_data.json, by which `exclude` knows its pictures that are COCO's.", None, path=True
    )


class MdetrSource(FolderSource, PhraseSource):
    """Images with `caption`, annotations with `tokens_positive`, a list of spans.

    The same picture may come in several entries, one for each caption or, as in the RefCOCO family, expression.
    images: the folder, or folders by the entries' `data_source`. refers: see `PhraseSource`; without it the
    `dataset_name` of most entries says whether they are of the RefCOCO family or of Flickr30k. image_data: of Visual
    Genome, whose pictures' names are its numbers.
    """

    def __init__(
        self,
        json: str | Path,
        images: str | Path | Mapping[str, str],
        refers: bool | None = None,
        image_data: str | Path | None = None,
    ):
        self.coco_numbers = read_coco_numbers(image_data)
        folder = _common_folder(images)
        file = read_coco_json(json, _WANTED, captioned=True, file_of=lambda image: _path(image, images, folder))
        self.refers = refers
        if refers is None:
            self.refers, self.doubts = _refers(file.images, Path(json).stem)
        self.dropped = file.without_area + file.thin
        self.left_out = file.left_out
        self.annotated = file.annotated
        objects = file.trained
        self.trained_boxes = sum(map(len, objects))
        self.wordless_boxes = sum(map(_without_words, objects))
        self._captions = Texts(image.entry["caption"] for image in file.images)
        self._sizes = Sizes(image.size for image in file.images)
        self._boxes = Ragged(map(_edges, objects), (4,), np.float32)
        self._spans = Ragged(map(_numbered_spans, objects), (3,), np.int32)
        keys = [str(image.identifier) for image in file.images]
        files = [image.file for image in file.images]
        super().__init__(Path(json).stem, folder, in_layout_on_disk(folder, files), keys)

    @classmethod
    def files_read(cls, **arguments: Any) -> Iterable[str | Path]:
        return filter(None, (arguments["json"], arguments.get("image_data")))

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str]:
        return self._captions

    def regions(self, i: int) -> PhraseBoxes:
        boxes = self._boxes[i]
        spans: list[list[tuple[int, int]]] = [[] for _ in boxes]
        for number, start, end in self._spans[i].tolist():
            spans[number].append((start, end))
        return PhraseBoxes(self._captions[i], boxes, spans, self._sizes[i])

    def known_size(self, i: int) -> Size | None:
        return self._sizes[i]


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


def _without_words(objects: list[CocoObject]) -> int:
    return sum(not each.spans for each in objects)


def _edges(objects: list[CocoObject]) -> list[Box]:
    return [each.edges for each in objects]


def _numbered_spans(objects: list[CocoObject]) -> list[tuple[int, int, int]]:
    """(number of the object, start, end) of every span."""
    spans: list[tuple[int, int, int]] = []
    for number, each in enumerate(objects):
        spans.extend((number, start, end) for start, end in each.spans)
    return spans


def _refers(images: list[CocoImage], name: str) -> tuple[bool | None, list[str]]:
    """Whether the captions are referring expressions, as the `dataset_name` of most images tells, and a line about the
    others; None where it is told of no more than half of them."""
    answers = Counter(_REFERS.get(str(image.entry.get("dataset_name")).lower()) for image in images)
    if len(answers) < 2:
        return next(iter(answers), None), []
    answer, count = answers.most_common(1)[0]
    if 2 * count <= len(images):
        return None, [f"no dataset_name is that of most images of {name}: {_SCORED[None]}"]
    others = len(images) - count
    return answer, [f"dataset_name of {others} of {len(images)} images of {name} says otherwise: {_SCORED[answer]}"]
