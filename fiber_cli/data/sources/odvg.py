"""ODVG's JSONL: detection and grounding records, mixed at will."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fiber_cli.data.box_edges import inclusive
from fiber_cli.data.files import expecting, read_lines
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.records import Regions
from fiber_cli.data.source import CategorySource, PhraseSource
from fiber_cli.data.sources.format import Format
from fiber_cli.data.sources.odvg_record import odvg_regions, read_label_map
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

    label_map: JSON of the detection records' names by label; without it each instance's `category` is taken.
    """

    def __init__(self, jsonl: str | Path, images: str | Path, label_map: str | Path | None = None):
        names = read_label_map(label_map)
        files: list[str] = []
        keys: list[str] = []
        self._lines: list[bytes] = []
        for number, line in read_lines(jsonl, "an ODVG JSONL"):
            with expecting(f"{jsonl}, line {number}", "an ODVG record"):
                record = json.loads(line)
                if not label_map:
                    names.update(_categories(record))
                self.dropped += _count_no_boxes(odvg_regions(record, dict.fromkeys(names, 0)))
                keys.append(f"{len(files)}:{record['filename']}")
                files.append(record["filename"])
            self._lines.append(line)
        ordered = sorted(names, key=int)
        self.names = [names[key] for key in ordered]
        self._label_of = {key: label for label, key in enumerate(ordered)}
        super().__init__(Path(jsonl).stem, images, files, keys)

    def regions(self, i: int) -> Regions:
        return odvg_regions(json.loads(self._lines[i]), self._label_of)


ODVG = Format(kind="odvg", settings=OdvgSettings, source=OdvgSource)


def _categories(record: dict[str, Any]) -> dict[str, str]:
    """Label, as text, → name of the instances of a detection record."""
    if "detection" not in record:
        return {}
    return {str(int(instance["label"])): instance["category"] for instance in record["detection"]["instances"]}


def _count_no_boxes(regions: Regions) -> int:
    _, has_area = inclusive(regions.boxes, regions.size or _UNKNOWN_SIZE)
    return int((~has_area).sum())
