"""Detection data in COCO's JSON form: COCO, LVIS, Objects365 and what labelling tools export."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fiber_cli.data.coco_json import (
    BACKGROUND,
    LVIS_LISTS,
    CocoCategory,
    CocoJson,
    CocoObject,
    Use,
    check_names,
    read_coco_json,
)
from fiber_cli.data.folder import FolderSource, in_layout_on_disk
from fiber_cli.data.ragged import Ragged
from fiber_cli.data.records import NamedBoxes
from fiber_cli.data.source import CategorySource, Source
from fiber_cli.data.sources.format import Format
from fiber_cli.errors import UserError
from fiber_cli.settings import SourceSettings, option

#: How often the published recipes repeat the pictures of so many shots.
COPIES = {1: 8, 3: 4, 5: 2, 10: 1}


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
    prompts: name → {name, prefix, suffix} for names that prompts show otherwise. Where no image lies under its name in
    the JSON, the layout that does without the name's first folders is taken (see `in_layout_on_disk`).
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
        self.prompts = prompts
        file = read_coco_json(json, "a detection JSON in COCO's form", labelled=True)
        self.dropped = file.without_area + file.thin
        self.scored_all_the_same = file.thin
        self.left_out = file.left_out
        self.annotated, self.federated = file.annotated, file.federated
        self._categories = _of_things(file)
        if not self._categories:
            raise UserError(f"{json}: has no categories; detection needs their names")
        self.names = [category.name for category in self._categories]
        check_names(json, self.names)
        label_of = {category.identifier: label for label, category in enumerate(self._categories)}
        labels = [[label_of[each.category] for each in of_image] for of_image in file.trained]
        self.trained_boxes = sum(map(len, labels))
        chosen = _choose(labels, shots, seed, copies)
        self._images = [file.images[i] for i in chosen]
        self._objects = ObjectTable([file.objects[i] for i in chosen], label_of)
        files = [image.file for image in self._images]
        super().__init__(name or Path(json).stem, images, in_layout_on_disk(images, files), files)

    @property
    def category_ids(self) -> Sequence[int]:
        return [category.identifier for category in self._categories]

    def image_id(self, i: int) -> int:
        identifier = self._images[i].identifier
        assert isinstance(identifier, int), "read_coco_json refuses others in labelled files"
        return identifier

    def image_names(self, i: int) -> list[str]:
        return [*super().image_names(i), str(self.image_id(i))]

    def truth(self) -> dict[str, Any]:
        images: dict[int, dict[str, Any]] = {}
        annotations: list[dict[str, Any]] = []
        for i, image in enumerate(self._images):
            identifier = self.image_id(i)
            if identifier in images:
                continue  # a copy of few-shot training
            images[identifier] = {"id": identifier}
            if self.federated:
                images[identifier] |= {name: image.entry[name] for name in LVIS_LISTS}
            for annotation in self._objects.annotations(i, self.category_ids):
                annotations.append({"image_id": identifier, **annotation})
        return {"images": list(images.values()), "annotations": annotations, "categories": self._category_entries()}

    def _category_entries(self) -> list[dict[str, Any]]:
        entries = []
        for category in self._categories:
            entry: dict[str, Any] = {"id": category.identifier, "name": category.name}
            if self.federated:
                entry["frequency"] = category.frequency
            entries.append(entry)
        return entries

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str]:
        """The names, and what prompts show in their place and beside them."""
        overrides = [override.values() for override in (self.prompts or {}).values()]
        return chain(self.names, *overrides)

    def regions(self, i: int) -> NamedBoxes:
        boxes, labels = self._objects.trained(i)
        return NamedBoxes(boxes, labels, self._images[i].size)


class ObjectTable:
    """The objects of all images in a few arrays, which worker processes share without copying."""

    def __init__(self, objects: Sequence[Sequence[CocoObject]], label_of: Mapping[int, int]):
        self._boxes = _column(objects, lambda each: each.box, (4,), np.float64)
        self._areas = _column(objects, lambda each: each.area, (), np.float64)
        self._labels = _column(objects, lambda each: label_of[each.category], (), np.int64)
        self._uses = _column(objects, lambda each: each.use, (), np.uint8)
        self._ignored = _column(objects, lambda each: each.ignore, (), np.bool_)

    def trained(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes float32 (n, 4), edges, and labels int64 (n,) of an image's objects that are trained on."""
        rows = self._uses[i] == Use.TRAINED
        corner, sides = np.split(self._boxes[i][rows], 2, axis=1)
        edges = np.concatenate([corner, corner + sides], axis=1)
        return edges.astype(np.float32), self._labels[i][rows]

    def annotations(self, i: int, category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """What is scored of an image, crowds included, in COCO's form but for `image_id`."""
        columns = (self._boxes, self._areas, self._labels, self._uses, self._ignored)
        for box, area, label, use, ignore in zip(*(column[i].tolist() for column in columns), strict=True):
            yield {
                "category_id": category_ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": int(use == Use.CROWD),
                "ignore": int(ignore),
            }


def _column(
    objects: Sequence[Sequence[CocoObject]],
    value: Callable[[CocoObject], Any],
    shape: tuple[int, ...],
    dtype: type[np.generic],
) -> Ragged:
    return Ragged([[value(each) for each in of_image] for of_image in objects], shape, dtype)


COCO = Format(kind="coco", settings=CocoSettings, source=CocoSource)


def _of_things(file: CocoJson) -> list[CocoCategory]:
    """The categories that are names of things, by their ids."""
    used = {each.category for of_image in file.objects for each in of_image}
    categories = sorted(file.categories)
    parents = {category.supercategory for category in categories}
    return [each for each in categories if each.identifier in used or not _is_background(each, parents)]


def _is_background(category: CocoCategory, parents: set[str | None]) -> bool:
    groups_all = category.supercategory == "none" and category.name in parents
    return category.identifier == 0 and (groups_all or category.name in (BACKGROUND, "background"))


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
