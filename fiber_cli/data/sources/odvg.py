"""ODVG's JSONL: detection and grounding records, mixed at will."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fiber_cli.data.box_edges import has_area_inside, inclusive
from fiber_cli.data.coco_json import check_names, image_size
from fiber_cli.data.columns import Texts
from fiber_cli.data.file_records import FileRecords
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.records import PhraseBoxes, Regions, Size
from fiber_cli.data.source import CategorySource, PhraseSource, Source
from fiber_cli.data.sources.format import Format
from fiber_cli.data.sources.odvg_record import LabelMap, odvg_regions, read_label_map
from fiber_cli.data.values import path_text, some_text, whole_number
from fiber_cli.data.words import WordGatherer
from fiber_cli.errors import UserError
from fiber_cli.parsing import parse_json
from fiber_cli.settings import SourceSettings, option

#: Stands for the size of an image whose record does not tell.
_UNKNOWN_SIZE = (2**31, 2**31)


@dataclass(frozen=True)
class OdvgSettings(SourceSettings):
    """ODVG's JSONL, detection and grounding records."""

    kind: Literal["odvg"]
    jsonl: str = option("The JSONL file.", path=True)
    images: str = option("Folder with the images.", path=True)
    label_map: str | None = option("JSON {label: name} of the detection records.", None, path=True)


class OdvgSource(FolderSource, CategorySource, PhraseSource):
    """One record a line (see `odvg_regions`) with `filename`.

    label_map: JSON of the detection records' names by label, which no record may contradict; without
    it each instance's `category` is taken.
    """

    def __init__(self, jsonl: str | Path, images: str | Path, label_map: str | Path | None = None):
        known = read_label_map(label_map)
        names = dict(known.names)
        records = FileRecords(jsonl, "an ODVG JSONL")
        reader = _LineReader(jsonl, names, known if label_map else None)
        files: list[str] = []
        self.trained_boxes = 0
        self._lines = Texts(self._counted(records.lines(reader.read), files))
        self.left_out = records.left_out
        self._caption_words = reader.caption_words.words()
        ordered = sorted(names, key=int)
        self.names = [names[key] for key in ordered]
        check_names(label_map or jsonl, self.names)
        self._label_of = {key: label for label, key in enumerate(ordered)}
        keys = [f"{number}:{file}" for number, file in enumerate(files)]
        super().__init__(Path(jsonl).stem, images, files, keys)

    def _counted(self, lines: "Iterable[tuple[int, _Line]]", files: list[str]) -> Iterator[str]:
        """The lines' contents; their images are put into `files`."""
        for _, line in lines:
            self.trained_boxes = (self.trained_boxes or 0) + line.trained
            self.wordless_boxes += line.wordless
            self.dropped += line.without_area + line.thin
            self.scored_all_the_same += line.thin
            files.append(line.file)
            yield line.content.decode()

    @classmethod
    def files_read(cls, **arguments: Any) -> Iterable[str | Path]:
        return filter(None, (arguments["jsonl"], arguments.get("label_map")))

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str] | None:
        return None if self._caption_words is None else chain(self.names, self._caption_words)

    def regions(self, i: int) -> Regions:
        return odvg_regions(parse_json(self._lines[i]), self._label_of)

    def known_size(self, i: int) -> Size | None:
        return image_size(parse_json(self._lines[i]))


ODVG = Format(kind="odvg", settings=OdvgSettings, source=OdvgSource)


class _Line(NamedTuple):
    """A record, and how many of its boxes have no area, are of at most a pixel's width or height, are trained on, and
    of these have no words of the caption."""

    file: str
    content: bytes
    without_area: int
    thin: int
    trained: int
    wordless: int


class _LineReader:
    """Reads lines. names: label → name, to which labels that a line names are added unless there is a label map.
    caption_words: of all captions, gathered here because a second pass would parse every line again."""

    def __init__(self, path: str | Path, names: dict[str, str], label_map: LabelMap | None):
        self.path, self.names, self.label_map = path, names, label_map
        self._fixed_labels = dict.fromkeys(names, 0)
        self.caption_words = WordGatherer()

    def read(self, line: bytes) -> _Line:
        record = parse_json(line)
        if self.label_map is None:
            named = _categories(record)
            regions = odvg_regions(record, dict.fromkeys(named, 0))
        else:
            named = {}
            regions = odvg_regions(record, self._fixed_labels, self.label_map)
        file = path_text(record["filename"], "filename")
        for label, name in named.items():
            known = self.names.setdefault(label, name)
            if known != name:
                raise UserError(f"{self.path}: label {label} is {known!r} and also {name!r}; give each label one name")
        size = regions.size or _UNKNOWN_SIZE
        _, is_trained = inclusive(regions.boxes, size)
        has_area = has_area_inside(regions.boxes, regions.size)
        wordless = 0
        if isinstance(regions, PhraseBoxes):
            self.caption_words.add(regions.caption)
            wordless = sum(not spans for spans, trained in zip(regions.spans, is_trained, strict=True) if trained)
        return _Line(
            file,
            line,
            without_area=int((~has_area).sum()),
            thin=int((has_area & ~is_trained).sum()),
            trained=int(is_trained.sum()),
            wordless=wordless,
        )


def _categories(record: dict[str, Any]) -> dict[str, str]:
    """Label, as text, → name of the instances of a detection record."""
    if record.get("detection") is None:
        return {}
    names: dict[str, str] = {}
    for instance in record["detection"]["instances"]:
        label = str(whole_number(instance["label"], "label"))
        name = some_text(instance["category"], "category")
        if names.setdefault(label, name) != name:
            raise ValueError(f"label {label} is {names[label]!r} and also {name!r}")
    return names
