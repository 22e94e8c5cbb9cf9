"""Detection data in Ultralytics' form: a `data.yaml`, and a text file of labels beside each picture."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fiber_cli.data.object_source import ObjectSource
from fiber_cli.data.sources.format import Format
from fiber_cli.data.yolo_labels import read_yolo, yolo_files
from fiber_cli.settings import SourceSettings, option


@dataclass(frozen=True)
class YoloSettings(SourceSettings):
    """Boxes with categories in Ultralytics' form (YOLO); outlines become the boxes around them."""

    kind: Literal["yolo"]
    data: str = option("The data.yaml: names of the classes, and where the pictures of each split are.", path=True)
    split: str = option("One of the splits of data.yaml: train, val or test.", "train")
    prompts: dict[str, Any] = option("Category name: {name, prefix, suffix} that prompts show instead.", factory=dict)
    shots: int | None = option("Only images that give each category so many; null = all.", None, ge=1)
    seed: int = option("Draws the images of the shots.", 0, ge=0)
    copies: int | None = option("Times each image comes; null = once, of shots 1, 3, 5, 10: 8, 4, 2, 1.", None, ge=1)
    name: str | None = option("Name of the set in results; null = of data.yaml's folder, and the split.", None)


class YoloSource(ObjectSource):
    """Every picture of the split, also those without labels, with its boxes; see `yolo_labels` and `ObjectSource`."""

    def __init__(
        self,
        data: str | Path,
        split: str = "train",
        *,
        prompts: Mapping[str, Mapping[str, str]] | None = None,
        shots: int | None = None,
        seed: int = 0,
        copies: int | None = None,
        name: str | None = None,
    ):
        labelled = read_yolo(data, split)
        name = name or f"{Path(data).absolute().parent.name}-{split}"
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
        return yolo_files(arguments["data"], arguments.get("split", "train"))


YOLO = Format(kind="yolo", settings=YoloSettings, source=YoloSource)
