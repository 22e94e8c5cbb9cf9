"""Detection data in COCO's JSON form: COCO, LVIS, Objects365 and what labelling tools export."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from fiber_cli.data.files import expecting, read_bytes, read_json
from fiber_cli.data.images import FolderSource
from fiber_cli.tasks.regions.prompts import BACKGROUND
from fiber_cli.tasks.regions.data import Detected, Ragged, Size
from fiber_cli.errors import UserError

#: How often the published recipes repeat the pictures of so many shots.
COPIES = {1: 8, 3: 4, 5: 2, 10: 1}


class CocoFile(NamedTuple):
    """images: as in the file; annotations: those of each image that count, with "box", their xyxy edges; `dropped`:
    how many were left out because they are no boxes of several pixels inside their image; `content`: the whole file."""

    images: list[dict[str, Any]]
    annotations: list[list[dict[str, Any]]]
    dropped: int
    content: dict[str, Any]


def read_coco(path: str | Path, wanted: str, *, labelled: bool = False) -> CocoFile:
    """Images and annotations of a file in COCO's form, crowds left out.

    labelled: every annotation must name a category of the file. `UserError` with the place of what is wrong.
    """
    content = read_json(path, wanted)
    place, dropped = "its outermost level", 0
    with expecting(path, wanted, see=lambda: place):
        images, number = content["images"], {}
        for n, image in enumerate(images):
            place = f"images[{n}]"
            if image["id"] in number:
                raise ValueError(f"the id {image['id']} comes twice")
            if labelled and not isinstance(image["id"], int):
                raise TypeError(f"the id {image['id']!r} is no whole number")
            file_name(image)
            number[image["id"]] = n
        known = set()
        for n, category in enumerate(content["categories"] if labelled else ()):
            place = f"categories[{n}]"
            if not isinstance(category["id"], int) or not isinstance(category["name"], str):
                raise TypeError("the id must be a whole number, the name text")
            known.add(category["id"])
        grouped: list[list[dict]] = [[] for _ in images]
        for n, annotation in enumerate(content["annotations"]):
            place = f"annotations[{n}]"
            which = number[annotation["image_id"]]
            x, y, w, h = map(float, annotation["bbox"])
            if not math.isfinite(x + y + w + h):
                raise ValueError("bbox is not finite")
            if labelled and annotation["category_id"] not in known:
                raise ValueError(f"there is no category {annotation['category_id']}")
            if annotation.get("iscrowd"):
                continue
            height, width = image_size(images[which]) or (math.inf, math.inf)
            if min(w, h) > 1 and x < width and y < height and x + w > 0 and y + h > 0:
                grouped[which].append({**annotation, "box": (x, y, x + w, y + h)})
            else:
                dropped += 1
    return CocoFile(images, grouped, dropped, content)


def image_size(image: dict[str, Any]) -> Size | None:
    """(height, width) as an entry of `images` has it."""
    return (image["height"], image["width"]) if image.get("height") and image.get("width") else None


def file_name(image: dict[str, Any]) -> str:
    """The path below the folder of images; LVIS gives COCO's address instead, whose last two parts are it."""
    return image.get("file_name") or "/".join(image["coco_url"].split("/")[-2:])


class CocoDetection(FolderSource):
    """Every image of the JSON, also those without boxes, with its boxes and labels.

    names: category names in the order of the original ids, `category_ids`; a label is a number in both. The category
    0 that Roboflow adds for all others, and a `__background__`, are left out where no box has them. shots: only the
    first images of an order by `seed` in which some category has not yet so many images; `copies` of each. prompts:
    name → {name, prefix, suffix} for names that prompts show otherwise. federated: whether the images have LVIS's
    lists of what was looked for.
    """

    def __init__(
        self, json: str | Path, images: str | Path, *, prompts: Mapping[str, Mapping[str, str]] | None = None,
        shots: int | None = None, seed: int = 0, copies: int | None = None, name: str | None = None,
    ):  # fmt: skip
        self.json, self.prompts = Path(json), prompts
        file = read_coco(json, "a detection JSON in COCO's form", labelled=True)
        self.dropped = file.dropped
        lists = {"neg_category_ids", "not_exhaustive_category_ids"}
        self.federated = all(lists <= image.keys() for image in file.images) and all(
            "frequency" in category for category in file.content["categories"]
        )
        used = {annotation["category_id"] for row in file.annotations for annotation in row}
        categories = sorted(file.content["categories"], key=lambda category: category["id"])
        parents = {category.get("supercategory") for category in categories}
        categories = [c for c in categories if c["id"] in used or not _is_background(c, parents)]
        if not categories:
            raise UserError(f"{json}: has no categories; detection needs their names")
        self.names, self.category_ids = [c["name"] for c in categories], [c["id"] for c in categories]
        label = {category: number for number, category in enumerate(self.category_ids)}
        labels = [[label[annotation["category_id"]] for annotation in row] for row in file.annotations]
        chosen = list(range(len(labels)))
        if shots:
            copies = COPIES.get(shots, 1) if copies is None else copies
            chosen = few_shot(labels, shots, seed) * copies
        self.images = [file.images[i] for i in chosen]
        self.image_ids = [image["id"] for image in self.images]
        self._labels = Ragged([labels[i] for i in chosen], (), np.int64)
        self._boxes = Ragged([[a["box"] for a in file.annotations[i]] for i in chosen], (4,), np.float32)
        files = [file_name(image) for image in self.images]
        super().__init__(name or self.json.stem, images, files)

    def regions(self, i: int) -> Detected:
        return Detected(self._boxes[i], self._labels[i], image_size(self.images[i]))


def _is_background(category: dict[str, Any], parents: set) -> bool:
    grouping = category.get("supercategory") == "none" and category["name"] in parents
    return category["id"] == 0 and (grouping or category["name"] in (BACKGROUND, "background"))


def few_shot(labels: Sequence[Sequence[int]], shots: int, seed: int) -> list[int]:
    """Numbers of images in a random order, each taken while one of its labels has been seen in fewer than `shots`."""
    seen, chosen = Counter(), []
    for i in np.random.default_rng(seed).permutation(len(labels)).tolist():
        present = set(labels[i])
        if any(seen[label] < shots for label in present):
            chosen.append(i)
            seen.update(present)
    return chosen


def read_odinw(path: str | Path) -> list[dict[str, Any]]:
    """A YAML or JSON list of {name, json, images, prompts (optional)}, paths relative to the list's folder.

    prompts: name → {name, prefix, suffix} for the names that are shown otherwise.
    """
    path = Path(path)
    try:
        entries = yaml.safe_load(read_bytes(path, "the list of the ODinW sets"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML or JSON: {error}") from None
    wanted, found = {"name", "json", "images"}, []
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        keys = set(entry) if isinstance(entry, dict) else set()
        if not wanted <= keys <= {*wanted, "prompts"}:
            raise UserError(
                f"{path}: entry {number + 1} needs name, json and images, and may have prompts; it is {entry}"
            )
        if any(entry["name"] == other["name"] for other in found):
            raise UserError(f"{path}: entry {number + 1}: there are two sets named {entry['name']}")
        places = {key: path.parent / entry[key] for key in ("json", "images")}
        found.append({"name": str(entry["name"]), "prompts": entry.get("prompts") or {}, **places})
    return found
