"""Detection data in COCO's JSON form: COCO, LVIS, Objects365 and what labelling tools export."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fiber_cli.data.coco_labels import read_coco
from fiber_cli.data.object_source import ObjectSource
from fiber_cli.data.sources.format import Format
from fiber_cli.settings import SourceSettings, option


@dataclass(frozen=True)
class CocoSettings(SourceSettings):
    """Boxes with categories in COCO's JSON form: COCO, LVIS, Objects365, any labelling tool's export."""

    kind: Literal["coco"]
    json: str = option("The JSON file; its category names become the prompt.", path=True)
    images: str = option("Folder that the file names in the JSON are relative to.", path=True)
    prompts: dict[str, Any] = option("Category name: {name, prefix, suffix} that prompts show instead.", factory=dict)
    shots: int | None = option("Only images that give each category so many; null = all.", None, ge=1)
    seed: int = option("Draws the images of the shots.", 0, ge=0)
    copies: int | None = option("Times each image comes; null = once, of shots 1, 3, 5, 10: 8, 4, 2, 1.", None, ge=1)
    name: str | None = option("Name of the set in results; null = the JSON file's.", None)


class CocoSource(ObjectSource):
    """Every image of the JSON, also those without boxes, with its boxes and labels.

    Categories come in the order of their original ids. The category 0 that Roboflow adds for all others, and a
    `__background__`, are left out where no box has them. Where no image lies under its name in the JSON, the layout
    that does without the name's first folders is taken (see `in_layout_on_disk`). The rest: see `ObjectSource`.
    """

    def __init__(
        self,
        json: str | Path,
        images: str | Path,
        *,
        prompts: Mapping[str, Mapping[str, str]] | None = None,
        shots: int | None = None,
        seed: int = 0,
        copies: int | None = None,
        name: str | None = None,
    ):
        labelled = read_coco(json, images)
        super().__init__(
            name or Path(json).stem,
            labelled,
            prompts=prompts,
            shots=shots,
            seed=seed,
            copies=copies,
        )

    @classmethod
    def files_read(cls, **arguments: Any) -> Iterable[str | Path]:
        return (arguments["json"],)

    def image_names(self, i: int) -> list[str]:
        return [*super().image_names(i), str(self.image_id(i))]


COCO = Format(kind="coco", settings=CocoSettings, source=CocoSource)
