"""Karpathy's JSON of COCO, Flickr30k and Flickr8k: images with captions, in splits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fiber_cli.data.columns import Identifiers
from fiber_cli.data.file_records import FileRecords, Once
from fiber_cli.data.folder import CaptionedFolder
from fiber_cli.data.image_names import coco_name
from fiber_cli.data.json_lists import read_json_lists
from fiber_cli.data.sources.format import Format
from fiber_cli.data.values import path_text, some_text, text, whole_number
from fiber_cli.errors import UserError
from fiber_cli.settings import SourceSettings, option

_FORM = '{"images": [{"filename": …, "split": …, "sentences": [{"raw": …}, …]}, …]}'


@dataclass(frozen=True)
class KarpathySettings(SourceSettings):
    """Karpathy JSON with an image folder."""

    kind: Literal["karpathy"]
    json: str = option("The JSON file, such as dataset_coco.json.", path=True)
    images: str = option("Folder that the file names in the JSON are relative to.", path=True)
    split: str | tuple[str, ...] = option("One split or several; train includes COCO's restval.", "train")


class KarpathyEntry(NamedTuple):
    """An image of a Karpathy JSON; `restval` reads as `train`. cocoid: where the file gives COCO's ids."""

    file: str
    split: str
    captions: list[str]
    cocoid: int | None


class KarpathySource(CaptionedFolder):
    """The images of one or several splits, each with all its captions.

    json: a file with `images[]{filename, filepath (optional), split, sentences[]{raw}}`; images: the folder
    in which `filepath/filename` lie. `train` includes COCO's `restval`, as everywhere in the field (113,287
    images). Raises `UserError` for a missing or malformed file, a missing folder, or a split without images.
    """

    def __init__(self, json: str | Path, images: str | Path, split: str | Sequence[str] = "train"):
        wanted = {split} if isinstance(split, str) else set(split)
        records = _records(json)
        entries = _of_splits(records, wanted)
        self.left_out = records.left_out
        self._cocoids = Identifiers(entry.cocoid for entry in entries)
        name = f"{Path(json).stem}:{'+'.join(sorted(wanted))}"
        files = [entry.file for entry in entries]
        super().__init__(name, images, files, [entry.captions for entry in entries])

    @classmethod
    def files_read(cls, **arguments: Any) -> Iterable[str | Path]:
        return (arguments["json"],)

    def image_id(self, i: int) -> int | str:
        """COCO's id where the file gives it, else the file."""
        cocoid = self._cocoids[i]
        return self.key(i) if cocoid is None else cocoid

    def image_names(self, i: int) -> list[str]:
        cocoid = self._cocoids[i]
        names = super().image_names(i)
        return [*names, coco_name(cocoid), str(cocoid)] if isinstance(cocoid, int) else names


KARPATHY = Format(kind="karpathy", settings=KarpathySettings, source=KarpathySource)


def _of_splits(records: FileRecords, wanted: set[str]) -> list[KarpathyEntry]:
    entries = _entries(records)
    present = {entry.split for entry in entries}
    if not wanted or wanted - present:
        absent = ", ".join(sorted(wanted - present)) or "(none given)"
        there = ", ".join(sorted(present)) or "none"
        raise UserError(f"{records.path}: no images of split {absent}; the splits of this file are: {there}")
    return [entry for entry in entries if entry.split in wanted]


def read_karpathy(path: str | Path, *, strict: bool = False) -> list[KarpathyEntry]:
    """The images of a Karpathy JSON. Raises `UserError` for a missing or malformed file, for images that come twice,
    and, if `strict`, for every bad record."""
    return _entries(_records(path, strict=strict))


def _records(path: str | Path, *, strict: bool = False) -> FileRecords:
    return FileRecords(path, "a Karpathy JSON", _FORM, strict=strict)


def _entries(records: FileRecords) -> list[KarpathyEntry]:
    content = read_json_lists(records.path, "a Karpathy JSON such as dataset_coco.json")
    reader = _EntryReader(records.path)
    return [entry for _, entry in records.each("images", records.entries(content, "images"), reader.read)]


class _EntryReader:
    def __init__(self, path: str | Path):
        self.files = Once(path, "the file", "images")
        self.cocoids = Once(path, "the cocoid", "images")

    def read(self, image: dict[str, Any]) -> KarpathyEntry:
        folder = path_text(image["filepath"], "filepath") if image.get("filepath") else ""
        file = str(Path(folder, path_text(image["filename"], "filename")))
        cocoid = image.get("cocoid")
        if cocoid is not None:
            cocoid = whole_number(cocoid, "cocoid")
        captions = [text(sentence["raw"], "raw").strip() for sentence in image["sentences"]]
        split = some_text(image["split"], "split")
        self.files.add(file)
        if cocoid is not None:
            self.cocoids.add(cocoid)
        split = "train" if split == "restval" else split
        return KarpathyEntry(file, split, [caption for caption in captions if caption], cocoid)
