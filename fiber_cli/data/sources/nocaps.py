"""NoCaps: images with ten captions each, told apart by how far they are from COCO (in-, near-, out-domain)."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fiber_cli.data.columns import Identifiers, OptionalTexts
from fiber_cli.data.file_records import FileRecords, Once, Ownerless
from fiber_cli.data.folder import CaptionedFolder
from fiber_cli.data.json_lists import read_json_lists
from fiber_cli.data.sources.format import Format
from fiber_cli.data.values import identifier, path_text, text
from fiber_cli.settings import SourceSettings, option

_FORM = '{"images": [{"id": …, "file_name": …}, …], "annotations": [{"image_id": …, "caption": …}, …]}'


@dataclass(frozen=True)
class NocapsSettings(SourceSettings):
    """NoCaps' JSON with an image folder."""

    kind: Literal["nocaps"]
    json: str = option("The JSON file, such as nocaps_val_4500_captions.json.", path=True)
    images: str = option("Folder with the images.", path=True)


class NocapsSource(CaptionedFolder):
    """The images of a NoCaps file, with their captions where it has any (the test file has none).

    json: `images[]{id, file_name, domain (optional)}` and `annotations[]{image_id, caption}`; images: the folder in
    which the files lie. Raises `UserError` for a missing or malformed file or a missing folder.
    """

    def __init__(self, json: str | Path, images: str | Path):
        content = read_json_lists(json, "a NoCaps JSON such as nocaps_val_4500_captions.json")
        records = FileRecords(json, "a NoCaps JSON", _FORM)
        reader = _Reader(json)
        entries = [entry for _, entry in records.each("images", records.entries(content, "images"), reader.image)]
        captions: dict[int | str, list[str]] = {entry.identifier: [] for entry in entries}
        if content.get("annotations") is not None:
            annotations = records.entries(content, "annotations")
            for _, (of_image, caption) in records.each(
                "annotations", annotations, reader.caption, owners=len(reader.ids)
            ):
                if of_image in captions:  # and not left out
                    captions[of_image].append(caption)
        self.left_out = records.left_out
        self._domains = OptionalTexts(entry.domain for entry in entries)
        self._image_ids = Identifiers(captions)
        super().__init__(Path(json).stem, images, [entry.file for entry in entries], list(captions.values()))

    @classmethod
    def files_read(cls, **arguments: Any) -> Iterable[str | Path]:
        return (arguments["json"],)

    def image_id(self, i: int) -> int | str:
        identifier = self._image_ids[i]
        assert identifier is not None
        return identifier

    def domain(self, i: int) -> str | None:
        return self._domains[i]


class _Image(NamedTuple):
    identifier: int | str
    file: str
    domain: str | None


class _Reader:
    """Reads images and captions. ids: of all images, bad ones too."""

    def __init__(self, path: str | Path):
        self.ids, self.files = Once(path, "the id", "images"), Once(path, "the file", "images")

    def image(self, entry: dict[str, Any]) -> _Image:
        own = self.ids.add(identifier(entry["id"]))
        file = path_text(entry["file_name"], "file_name")
        domain = entry.get("domain")
        if domain is not None:
            text(domain, "domain")
        return _Image(own, self.files.add(file), domain)

    def caption(self, annotation: dict[str, Any]) -> tuple[int | str, str]:
        of_image = identifier(annotation["image_id"], "image_id")
        if of_image not in self.ids:
            raise Ownerless(f"image {of_image!r}")
        return of_image, text(annotation["caption"], "caption").strip()


NOCAPS = Format(kind="nocaps", settings=NocapsSettings, source=NocapsSource)
