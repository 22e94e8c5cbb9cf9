"""Images with boxes of categories, from files of any form that a reader has brought into one."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any

import numpy as np

from fiber_cli.data.coco_json import LVIS_LISTS
from fiber_cli.data.columns import Identifiers, Sizes, Texts
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.labelled_set import LabelledSet, say_remarks
from fiber_cli.data.object_columns import ObjectColumns, Use
from fiber_cli.data.ragged import Ragged
from fiber_cli.data.records import NamedBoxes, Size
from fiber_cli.data.source import CategorySource, Source
from fiber_cli.parsing import parse_json

#: How often the published recipes repeat the pictures of so many shots.
COPIES = {1: 8, 3: 4, 5: 2, 10: 1}


class ObjectSource(FolderSource, CategorySource):
    """Every image of what a reader made of its files, also those without boxes, with its boxes and labels.

    The order of the set's categories is that of `names` and of `category_ids`, a label is a number in both. What is
    strange in its files is said on standard error. name: of the set in results. shots: only the first images of an
    order by `seed` in which some category has not yet so many images. copies: of each image. prompts: name → {name,
    prefix, suffix} for names that prompts show otherwise.
    """

    def __init__(
        self,
        name: str,
        labelled: LabelledSet,
        *,
        prompts: Mapping[str, Mapping[str, str]] | None = None,
        shots: int | None = None,
        seed: int = 0,
        copies: int | None = None,
    ):
        say_remarks(name, labelled)
        files = labelled.files
        categories = labelled.categories
        self.prompts = prompts
        self.dropped = files.without_area + files.thin
        self.scored_all_the_same = files.thin
        self.left_out = files.left_out
        self.annotated, self.federated = files.annotated, files.federated
        self._categories = categories
        self.names = [category.name for category in categories]
        label_of = {category.identifier: label for label, category in enumerate(categories)}
        objects = files.columns
        self.trained_boxes = int(objects.trained.sum())
        chosen = _choose(objects, label_of, shots, seed, copies)
        images = [files.images[i] for i in chosen]
        self._image_ids = Identifiers(image.identifier for image in images)
        self._sizes = Sizes(image.size for image in images)
        # LVIS's lists by their names, as JSON.
        self._listed: dict[str, Texts] = {}
        if self.federated:
            for name in sorted(LVIS_LISTS):
                self._listed[name] = Texts(json.dumps(image.entry[name]) for image in images)
        self._objects = ObjectTable(objects, chosen, label_of)
        paths = [labelled.paths[i] for i in chosen]
        super().__init__(name, labelled.folder, paths, [image.file for image in images])

    def boxes_digest(self) -> str:
        """Of all boxes and labels: another one tells that the files of annotations have changed."""
        return self._objects.digest()

    @property
    def category_ids(self) -> Sequence[int]:
        return [category.identifier for category in self._categories]

    def image_id(self, i: int) -> int:
        identifier = self._image_ids[i]
        assert isinstance(identifier, int), "readers of boxes with categories refuse others"
        return identifier

    def truth(self) -> dict[str, Any]:
        images: dict[int, dict[str, Any]] = {}
        annotations: list[dict[str, Any]] = []
        for i in range(len(self._image_ids)):
            identifier = self.image_id(i)
            if identifier in images:
                continue  # a copy of few-shot training
            images[identifier] = {"id": identifier}
            for name, listed in self._listed.items():
                images[identifier][name] = parse_json(listed[i])
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
        return NamedBoxes(boxes, labels, self._sizes[i])

    def known_size(self, i: int) -> Size | None:
        return self._sizes[i]


class ObjectTable:
    """The objects of all images in a few arrays, which worker processes share without copying."""

    def __init__(self, objects: ObjectColumns, images: Sequence[int], label_of: Mapping[int, int]):
        """Those of the images with these numbers."""
        self._boxes = objects.column(objects.boxes, images)
        self._areas = objects.column(objects.areas, images)
        self._labels = objects.column(_labels(objects, label_of), images)
        self._uses = objects.column(objects.uses, images)
        self._ignored = objects.column(objects.ignored, images)

    def digest(self) -> str:
        """Of all of it."""
        digest = blake2b(digest_size=6)
        for column in (self._boxes, self._labels, self._uses, self._ignored):
            digest.update(column.tobytes())
        return digest.hexdigest()

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


def _labels(objects: ObjectColumns, label_of: Mapping[int, int]) -> np.ndarray:
    """int64 (n,), of all objects."""
    labels = np.array([label_of[category] for category in objects.category_ids], np.int64)
    return labels[objects.categories]


def _choose(
    objects: ObjectColumns, label_of: Mapping[int, int], shots: int | None, seed: int, copies: int | None
) -> Sequence[int]:
    """Numbers of the images: all, or the few of `shots`, repeated."""
    if not shots:
        return list(range(len(objects))) * (copies or 1)
    if copies is None:
        copies = COPIES.get(shots, 1)
    labels = Ragged.of(objects.ends, _labels(objects, label_of))
    trained = Ragged.of(objects.ends, objects.trained)
    of_images = [labels[i][trained[i]].tolist() for i in range(len(objects))]
    return few_shot(of_images, shots, seed) * copies


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
