"""Visual Genome: region descriptions as captions of the whole image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fiber_cli.data.file_records import FileRecords, Once
from fiber_cli.data.files import expecting, read_json
from fiber_cli.data.folder import CaptionedFolder
from fiber_cli.data.sources.format import Format
from fiber_cli.data.sources.karpathy import read_karpathy
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
    image_data: str | None = option("image_data.json, which names each image's COCO id.", None, path=True)
    exclude: str | None = option("Karpathy JSON whose val and test images are left out.", None, path=True)


class VisualGenomeSource(CaptionedFolder):
    """All images of `region_descriptions.json`; the captions of an image are the phrases of its regions.

    images: the folder that holds `VG_100K` and `VG_100K_2`. Half of the images are COCO's: `exclude`, a
    Karpathy JSON of COCO, leaves out those outside its train split, told by `image_data`, Visual Genome's
    `image_data.json`; `excluded` counts them. Raises `UserError` for missing or malformed files.
    """

    def __init__(
        self,
        regions: str | Path,
        images: str | Path,
        image_data: str | Path | None = None,
        exclude: str | Path | None = None,
    ):
        held_out = _held_out(image_data, exclude)
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
            if image.identifier in held_out:
                continue
            captions.append(image.phrases)
            folder = "VG_100K_2" if str(image.identifier) in in_second_folder else "VG_100K"
            files.append(f"{folder}/{image.identifier}.jpg")
        self.left_out = records.left_out
        self.excluded = len(entries) - len(files) - len(records.left_out)
        if not files:
            raise UserError(f"{regions}: no image is left, {self.excluded} are excluded; check both files")
        super().__init__("visual_genome", images, files, captions)


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


def _held_out(image_data: str | Path | None, exclude: str | Path | None) -> set[int]:
    """Visual Genome's ids of the images that are outside the train split of the Karpathy JSON."""
    if image_data is None and exclude is None:
        return set()
    if image_data is None or exclude is None:
        raise UserError("visual_genome: image_data and exclude work only together; give both or neither")
    # Of an image that is left out of these two it would not be known whether it is held out.
    outside = [entry for entry in read_karpathy(exclude, strict=True) if entry.split != "train"]
    coco_ids = {entry.cocoid for entry in outside if entry.cocoid is not None}
    images = read_json(image_data, "Visual Genome's image_data.json")
    once = Once(image_data, "the image_id", "the images")
    with expecting(image_data, "Visual Genome's image_data.json"):
        held_out = set()
        for image in images:
            own = once.add(whole_number(image["image_id"], "image_id"))
            if image["coco_id"] is not None and whole_number(image["coco_id"], "coco_id") in coco_ids:
                held_out.add(own)
    if not held_out:
        raise UserError(f"{exclude}: outside train no `cocoid` is in {image_data}; give dataset_coco.json")
    return held_out
