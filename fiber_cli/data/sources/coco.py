"""Detection data in COCO's JSON form: COCO, LVIS, Objects365 and what labelling tools export."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fiber_cli.data.coco_json import BACKGROUND, CocoJson, Entry, file_name, image_size, read_coco_json
from fiber_cli.data.files import read_json
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.ragged import Ragged
from fiber_cli.data.records import NamedBoxes
from fiber_cli.data.source import CategorySource
from fiber_cli.data.sources.format import Format
from fiber_cli.errors import UserError
from fiber_cli.settings import SourceSettings, option

#: How often the published recipes repeat the pictures of so many shots.
COPIES = {1: 8, 3: 4, 5: 2, 10: 1}
_LVIS_LISTS = {"neg_category_ids", "not_exhaustive_category_ids"}


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


class CocoSource(FolderSource, CategorySource):
    """Every image of the JSON, also those without boxes, with its boxes and labels.

    names: category names in the order of the original ids, `category_ids`; a label is a number in both. The category
    0 that Roboflow adds for all others, and a `__background__`, are left out where no box has them. shots: only the
    first images of an order by `seed` in which some category has not yet so many images. copies: of each image.
    prompts: name → {name, prefix, suffix} for names that prompts show otherwise.
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
        self.json, self.prompts = Path(json), prompts
        file = read_coco_json(json, "a detection JSON in COCO's form", labelled=True)
        self.dropped = file.dropped
        self.federated = _is_federated(file)
        categories = _categories(file)
        if not categories:
            raise UserError(f"{json}: has no categories; detection needs their names")
        self.names = [category["name"] for category in categories]
        self._category_ids = [category["id"] for category in categories]
        label_of = {identifier: label for label, identifier in enumerate(self._category_ids)}
        labels = [[label_of[each["category_id"]] for each in of_image] for of_image in file.annotations]
        chosen = _choose(labels, shots, seed, copies)
        self._entries = [file.images[i] for i in chosen]
        self._labels = Ragged([labels[i] for i in chosen], (), np.int64)
        boxes = [[annotation["box"] for annotation in of_image] for of_image in file.annotations]
        self._boxes = Ragged([boxes[i] for i in chosen], (4,), np.float32)
        files = [file_name(entry) for entry in self._entries]
        super().__init__(name or self.json.stem, images, files)

    @property
    def category_ids(self) -> Sequence[int]:
        return self._category_ids

    def image_id(self, i: int) -> int:
        return self._entries[i]["id"]

    def truth(self) -> dict[str, Any]:
        return read_json(self.json, "the detection JSON that is evaluated")

    def regions(self, i: int) -> NamedBoxes:
        return NamedBoxes(self._boxes[i], self._labels[i], image_size(self._entries[i]))


COCO = Format(kind="coco", settings=CocoSettings, source=CocoSource)


def _is_federated(file: CocoJson) -> bool:
    """Whether the images have LVIS's lists of what was looked for, and the categories its frequencies."""
    with_lists = all(image.keys() >= _LVIS_LISTS for image in file.images)
    return with_lists and all("frequency" in category for category in file.content["categories"])


def _categories(file: CocoJson) -> list[Entry]:
    """The categories that are names of things, by their ids."""
    used = {annotation["category_id"] for of_image in file.annotations for annotation in of_image}
    categories = sorted(file.content["categories"], key=lambda category: category["id"])
    parents = {category.get("supercategory") for category in categories}
    return [each for each in categories if each["id"] in used or not _is_background(each, parents)]


def _is_background(category: Entry, parents: set[str | None]) -> bool:
    groups_all = category.get("supercategory") == "none" and category["name"] in parents
    return category["id"] == 0 and (groups_all or category["name"] in (BACKGROUND, "background"))


def _choose(labels: Sequence[Sequence[int]], shots: int | None, seed: int, copies: int | None) -> Sequence[int]:
    """Numbers of the images: all, or the few of `shots`, repeated."""
    if not shots:
        return list(range(len(labels))) * (copies or 1)
    if copies is None:
        copies = COPIES.get(shots, 1)
    return few_shot(labels, shots, seed) * copies


def few_shot(labels: Sequence[Sequence[int]], shots: int, seed: int) -> list[int]:
    """Numbers of images in a random order, each taken while one of its labels has been seen in fewer than `shots`."""
    seen: Counter[int] = Counter()
    chosen = []
    for i in np.random.default_rng(seed).permutation(len(labels)).tolist():
        present = set(labels[i])
        if any(seen[label] < shots for label in present):
            chosen.append(i)
            seen.update(present)
    return chosen
