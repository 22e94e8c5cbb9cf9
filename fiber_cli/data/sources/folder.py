"""Detection data in whichever form a labelling tool has left them in a folder."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fiber_cli.data.file_records import say_once
from fiber_cli.data.label_folder import Form, find_labels
from fiber_cli.data.labelled_set import in_order_of_names
from fiber_cli.data.object_source import ObjectSource
from fiber_cli.data.sources.format import Format
from fiber_cli.settings import SourceSettings, option


@dataclass(frozen=True)
class LabelFolderSettings(SourceSettings):
    """Boxes with categories in a folder whose form is found: COCO's, Ultralytics' (YOLO) or Pascal VOC's."""

    kind: Literal["folder"]
    split: str = option("train, val or test; tools' other names for them, such as valid, are known.")
    folder: str = option("The folder, as the tool has exported it.", ".", path=True)
    form: Literal["coco", "yolo", "voc"] | None = option(
        "The only form that is looked for; null = whichever is there.", None
    )
    json: str | None = option("COCO's JSON file, where it has another name than tools give it.", None, path=True)
    images: str | None = option("Folder of the pictures of COCO's JSON, where it lies elsewhere.", None, path=True)
    prompts: dict[str, Any] = option("Category name: {name, prefix, suffix} that prompts show instead.", factory=dict)
    shots: int | None = option("Only images that give each category so many; null = all.", None, ge=1)
    seed: int = option("Draws the images of the shots.", 0, ge=0)
    copies: int | None = option("Times each image comes; null = once, of shots 1, 3, 5, 10: 8, 4, 2, 1.", None, ge=1)
    name: str | None = option("Name of the set in results; null = of the folder, and the split.", None)


class LabelFolderSource(ObjectSource):
    """Every picture of the split with its boxes, in one order whatever the form: categories by the alphabet, pictures
    by their files' names. Which form was found is said on standard error. See `label_folder` and `ObjectSource`."""

    def __init__(
        self,
        split: str,
        folder: str | Path = ".",
        form: Form | None = None,
        json: str | Path | None = None,
        images: str | Path | None = None,
        *,
        prompts: Mapping[str, Mapping[str, str]] | None = None,
        shots: int | None = None,
        seed: int = 0,
        copies: int | None = None,
        name: str | None = None,
    ):
        found = find_labels(folder, split, form, json=json, images=images)
        labelled = in_order_of_names(found.read(False))
        name = name or f"{Path(folder).absolute().name}-{split}"
        say_once(f"{name}: labels in {labelled.form} form, by {found.file}: {len(labelled.files.images):,} pictures")
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
        names = ("folder", "split", "form", "json", "images")
        found = find_labels(**{"folder": ".", **{name: arguments[name] for name in names if name in arguments}})
        return found.looks_at()


LABEL_FOLDER = Format(kind="folder", settings=LabelFolderSettings, source=LabelFolderSource)
