"""Detection data in Pascal VOC's form: an XML file for each picture."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fiber_cli.data.object_source import ObjectSource
from fiber_cli.data.sources.format import Format
from fiber_cli.data.voc_labels import BoxesAre, VocOptions, read_voc, voc_files
from fiber_cli.settings import SourceSettings, option


@dataclass(frozen=True)
class VocSettings(SourceSettings):
    """Boxes with categories in Pascal VOC's form: in VOC's folders, or XML files beside their pictures."""

    kind: Literal["voc"]
    folder: str = option("Folder with Annotations/, JPEGImages/ and ImageSets/, or with pictures and XML.", path=True)
    split: str | None = option("Name of a list in ImageSets/Main, such as train; null = all XML files.", None)
    images: str | None = option(
        "Folder of the pictures; null = JPEGImages/, images/, or beside the XML.", None, path=True
    )
    names: tuple[str, ...] | None = option("The categories in their order; null = all in the XML, by alphabet.", None)
    boxes: Literal["pixels", "edges", "edges_from_1"] = option(
        "xmin to ymax: pixels = first and last pixel, from 1, VOC's own; edges = edges from 0; edges_from_1.", "pixels"
    )
    difficult: Literal["ignored", "used"] = option(
        "Objects marked so: neither trained on nor scored, or both.", "ignored"
    )
    prompts: dict[str, Any] = option("Category name: {name, prefix, suffix} that prompts show instead.", factory=dict)
    shots: int | None = option("Only images that give each category so many; null = all.", None, ge=1)
    seed: int = option("Draws the images of the shots.", 0, ge=0)
    copies: int | None = option("Times each image comes; null = once, of shots 1, 3, 5, 10: 8, 4, 2, 1.", None, ge=1)
    name: str | None = option("Name of the set in results; null = of the folder, and the split.", None)


class VocSource(ObjectSource):
    """Every picture of the split that has an XML file, with its boxes; see `voc_labels` and `ObjectSource`."""

    def __init__(
        self,
        folder: str | Path,
        split: str | None = None,
        images: str | Path | None = None,
        *,
        names: Sequence[str] | None = None,
        boxes: BoxesAre = "pixels",
        difficult: Literal["ignored", "used"] = "ignored",
        prompts: Mapping[str, Mapping[str, str]] | None = None,
        shots: int | None = None,
        seed: int = 0,
        copies: int | None = None,
        name: str | None = None,
    ):
        labelled = read_voc(folder, split, images, VocOptions(boxes, difficult, names))
        if not name:
            folder_name = Path(folder).absolute().name
            name = f"{folder_name}-{split}" if split else folder_name
        super().__init__(
            name,
            labelled,
            prompts=prompts,
            shots=shots,
            seed=seed,
            copies=copies,
        )

    @classmethod
    def files_read(cls, **arguments: Any) -> Iterable[str | Path]:
        return voc_files(arguments["folder"], arguments.get("split"), arguments.get("images"))


VOC = Format(kind="voc", settings=VocSettings, source=VocSource)
