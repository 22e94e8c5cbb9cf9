"""Visual Genome: region descriptions as captions of the whole image."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fiber_cli.data.file_records import FileRecords, Once
from fiber_cli.data.files import read_json
from fiber_cli.data.folder import CaptionedFolder
from fiber_cli.data.image_names import read_coco_numbers
from fiber_cli.data.sources.format import Format
from fiber_cli.data.values import text, whole_number
from fiber_cli.errors import UserError
from fiber_cli.settings import SourceSettings, option

_FORM = '[{"id": …, "regions": [{"phrase": …}, …]}, …]'


@dataclass(frozen=True)
class VisualGenomeSettings(SourceSettings):
    """Visual Genome region descriptions."""

    kind: Literal["visual_genome"]
    regions: str = option("region_descriptions.json.", path=True)
    images: str = option("Folder with the images.", path=True)
    image_data: str | None = option("image_data.json, by which `exclude` knows COCO's pictures.", None, path=True)


class VisualGenomeSource(CaptionedFolder):
    """All images of `region_descriptions.json`; the captions of an image are the phrases of its regions.

    images: the folder that holds `VG_100K` and `VG_100K_2`. image_data: Visual Genome's `image_data.json`, which names
    the half of the images that is COCO's, so that lists of COCO's images can exclude them. Raises `UserError` for
    missing or malformed files.
    """

    def __init__(self, regions: str | Path, images: str | Path, image_data: str | Path | None = None):
        self.coco_numbers = read_coco_numbers(image_data)
        in_second_folder = {path.stem for path in Path(images, "VG_100K_2").glob("*.jpg")}
        # A region becomes its phrase as soon as it is parsed: 5.4 million dicts would take gigabytes.
        entries = read_json(regions, "region_descriptions.json", _phrase_alone)
        records = FileRecords(regions, "Visual Genome's region descriptions", _FORM)
        if not isinstance(entries, list):
            raise UserError(f"{regions}: not Visual Genome's region descriptions; wanted is {_FORM}")
        reader = _ImageReader(regions)
        files: list[str] = []
        captions: list[list[str]] = []
        for _, image in records.each("images", entries, reader.read):
            captions.append(image.phrases)
            folder = "VG_100K_2" if str(image.identifier) in in_second_folder else "VG_100K"
            files.append(f"{folder}/{image.identifier}.jpg")
        self.left_out = records.left_out
        super().__init__("visual_genome", images, files, captions)

    @classmethod
    def files_read(cls, **arguments: Any) -> Iterable[str | Path]:
        second = Path(arguments["images"], "VG_100K_2")
        folders = [second] if second.is_dir() else []
        return (*filter(None, (arguments["regions"], arguments.get("image_data"))), *folders)


VISUAL_GENOME = Format(kind="visual_genome", settings=VisualGenomeSettings, source=VisualGenomeSource)


def _phrase_alone(item: dict[str, Any]) -> Any:
    return item.get("phrase", item)


class _Image(NamedTuple):
    identifier: int
    phrases: list[str]


class _ImageReader:
    """Reads images."""

    def __init__(self, path: str | Path):
        self.ids = Once(path, "the id", "the images")

    def read(self, entry: dict[str, Any]) -> _Image:
        own = whole_number(entry["id"], "the id")
        phrases = [text(phrase, "a phrase").strip() for phrase in entry["regions"]]
        return _Image(self.ids.add(own), [phrase for phrase in phrases if phrase])
