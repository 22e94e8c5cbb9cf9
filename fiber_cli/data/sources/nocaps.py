"""NoCaps: images with ten captions each, told apart by how far they are from COCO (in-, near-, out-domain)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fiber_cli.data.files import expecting, read_json
from fiber_cli.data.folder import CaptionedFolder
from fiber_cli.data.sources.format import Format
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
        content = read_json(json, "a NoCaps JSON such as nocaps_val_4500_captions.json")
        with expecting(json, "a NoCaps JSON", _FORM):
            entries = content["images"]
            captions: dict[int | str, list[str]] = {entry["id"]: [] for entry in entries}
            for annotation in content.get("annotations", ()):
                captions[annotation["image_id"]].append(annotation["caption"].strip())
            files = [entry["file_name"] for entry in entries]
            self._domains = [entry.get("domain") for entry in entries]
        self._image_ids = list(captions)
        super().__init__(Path(json).stem, images, files, list(captions.values()))

    def image_id(self, i: int) -> int | str:
        return self._image_ids[i]

    def domain(self, i: int) -> str | None:
        return self._domains[i]


NOCAPS = Format(kind="nocaps", settings=NocapsSettings, source=NocapsSource)
