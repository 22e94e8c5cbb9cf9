"""Evaluation of detection: COCO's average precision, and LVIS's two kinds."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fiber_cli.data.box_edges import has_area_inside
from fiber_cli.data.records import NamedBoxes
from fiber_cli.data.source import BadSample, CategorySource
from fiber_cli.errors import UserError
from fiber_cli.tasks.evalset import Score
from fiber_cli.tasks.regions.coco_ap import USUAL_LIBRARY, ApLibrary, ClassTable, CocoDetections, coco_ap, id_array
from fiber_cli.tasks.regions.lvis_ap import FIXED_PER_CLASS, LVIS_PER_IMAGE, best_per_group, lvis_ap
from fiber_cli.tasks.regions.presence import FEW_NAMES, few_labels, presence, presence_metrics, true_boxes_of
from fiber_cli.tasks.regions.prompt_batch import PromptBatch, label_prompts
from fiber_cli.tasks.regions.prompts import EncodedPrompt, build_prompt, encode_prompt, prompt_names
from fiber_cli.tasks.regions.region_set import NO_DETECTIONS, RegionSet
from fiber_cli.tasks.regions.transforms import LONGEST

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Most classes whose numbers stand in the notes too, not in the file alone.
_MOST_NOTED = 100
#: Images that are also asked few names by themselves, see `presence`.
_ASKED_FEW = 200


class DetectionSet(RegionSet):
    """COCO AP over the images of a detection source; a label is a number in the source's `names`.

    chunk: see `chunk_labels`; names_as_published: see `prompt_names`; library: what computes AP, see `coco_ap`.
    """

    FILES: ClassVar[tuple[str, ...]] = ("detections.json", "per_class.json")
    ASKS_FEW: ClassVar[bool] = True
    source: CategorySource

    def __init__(
        self,
        source: CategorySource,
        tokenizer: "PreTrainedTokenizerBase",
        text_length: int,
        *,
        short: int = 800,
        longest: int = LONGEST,
        chunk: int | str = "auto",
        names_as_published: bool = False,
        library: ApLibrary = USUAL_LIBRARY,
    ):
        first_sample: dict[int, int] = {}  # the copies of few-shot training are looked at once
        for i in range(len(source)):
            first_sample.setdefault(source.image_id(i), i)
        super().__init__(source, list(first_sample.values()), short, longest)
        names = prompt_names(source.names, source.prompts, names_as_published)
        self.prompts = label_prompts(names, tokenizer, text_length, chunk)
        self.image_ids = list(first_sample)
        self.library = library
        self._names, self._tokenizer, self._text_length = names, tokenizer, text_length
        #: Filled with `few_labels`.
        self._few_prompts: dict[int, EncodedPrompt] = {}

    def prompt_batch(self, indices: list[int]) -> PromptBatch:
        """All names; and of some images few by themselves, reported under the numbers behind those of all."""
        batch = PromptBatch.all_pairs(self.prompts, len(indices))
        rows, prompts, numbers = [], [], []
        for row, index in enumerate(indices):
            if index in self.few_labels:
                labels = self.few_labels[index]
                rows.append(row)
                prompts.append(self._few_prompts[index])
                numbers.append([len(self._names) + label for label in labels])
        return batch.and_own(prompts, rows, numbers)

    @cached_property
    def few_labels(self) -> dict[int, list[int]]:
        """Items → the few labels that they are asked by themselves; none where all names are few."""
        asked: dict[int, list[int]] = {}
        if not self.ASKS_FEW or not self.source.annotated or len(self._names) <= FEW_NAMES:
            return asked
        for index in range(0, len(self), -(-len(self) // _ASKED_FEW)):
            try:
                regions = self.source.regions(self.chosen[index])
            except BadSample:
                continue  # left out and named where it is to be predicted
            if isinstance(regions, NamedBoxes):
                present = np.unique(regions.labels).tolist()
                labels = few_labels(present, len(self._names), str(self.image_ids[index]))
                prompt = self._prompt_of(labels)
                if not prompt.truncated:
                    asked[index] = labels
                    self._few_prompts[index] = prompt
        return asked

    def _prompt_of(self, labels: Sequence[int]) -> EncodedPrompt:
        prompt = build_prompt([self._names[label] for label in labels])
        return encode_prompt(self._tokenizer, prompt, self._text_length)

    def remarks(self) -> list[str]:
        remarks = super().remarks()
        are_objects = [not annotation.get("iscrowd") for annotation in self.truth()["annotations"]]
        if self.source.annotated and not any(are_objects):
            remarks.append(f"no object in the truth of {self.source.name}: predicted only")
        return remarks

    def truth(self) -> dict[str, Any]:
        """What the source's reader made of its file, as far as it is about the images of the set; or the same from its
        boxes where the file is of another form."""
        content = self._content()
        ids = set(self.image_ids)
        images = [image for image in content["images"] if image["id"] in ids]
        annotations = [annotation for annotation in content["annotations"] if annotation["image_id"] in ids]
        return {**content, "images": images, "annotations": annotations}

    def _content(self) -> dict[str, Any]:
        content = self.source.truth()
        if content is not None:
            return content
        images = [{"id": i} for i in self.chosen]
        categories = [{"id": label, "name": name} for label, name in enumerate(self.source.names)]
        return {"images": images, "annotations": self._annotations(), "categories": categories}

    def _annotations(self) -> list[dict[str, Any]]:
        annotations = []
        for i in self.chosen:
            try:
                regions = self.source.regions(i)
            except BadSample:
                continue  # left out and named where it is to be predicted
            if not isinstance(regions, NamedBoxes):
                raise UserError(f"{self.source.name}: holds captions beside category names; evaluate them apart")
            kept = has_area_inside(regions.boxes, regions.size)
            for box, label in zip(regions.boxes[kept].tolist(), regions.labels[kept].tolist(), strict=True):
                x1, y1, x2, y2 = box
                annotations.append({"image_id": i, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]})
        return annotations

    def detections(self, predictions: Mapping[int, np.ndarray], extent: int) -> CocoDetections:
        """Predictions with the original ids, boxes xywh with a width of x2 - x1 + `extent`."""
        of_images = [NO_DETECTIONS]
        image_ids: list[int] = []
        for index in sorted(predictions):
            rows = predictions[index]
            rows = rows[rows[:, 5] < len(self._names)]
            of_images.append(rows)
            image_ids += [self.image_ids[index]] * len(rows)
        of_all = np.concatenate(of_images).astype(float)
        labels = of_all[:, 5].astype(int)
        categories = id_array(self.source.category_ids)[labels]
        corner = of_all[:, :2]
        sides = of_all[:, 2:4] - corner + extent
        boxes = np.concatenate([corner, sides], 1)
        return CocoDetections(id_array(image_ids), categories, boxes, of_all[:, 4])

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        """COCO AP, and which names fire, see `presence_metrics`; an image that could not be read counts as one without
        detections."""
        truth = self.truth()
        detections = self.detections(predictions, extent=1)
        metrics, table = coco_ap(truth, detections, self.image_ids, self.library)
        metrics |= self._presence_metrics(predictions, truth)
        return _score(detections, metrics, table)

    def _presence_metrics(self, predictions: Mapping[int, np.ndarray], truth: Mapping[str, Any]) -> dict[str, float]:
        count = len(self._names)
        of_all: dict[int, np.ndarray] = {}
        of_few: dict[int, np.ndarray] = {}
        for index, rows in predictions.items():
            is_of_few = rows[:, 5] >= count
            of_all[index] = rows[~is_of_few]
            if index in self.few_labels:
                of_few[index] = rows[is_of_few] - np.array([0, 0, 0, 0, 0, count], rows.dtype)
        label_of = {category: label for label, category in enumerate(self.source.category_ids)}
        true_boxes = true_boxes_of(self.image_ids, label_of, truth["annotations"])
        few = presence(of_few, true_boxes, count, self.few_labels) if of_few else None
        return presence_metrics(presence(of_all, true_boxes, count), few)


class LvisSet(DetectionSet):
    """LVIS by both protocols: `lvis/ap` with 300 detections an image, and `lvis/fixed_ap`; so each class too."""

    POSTPROCESSING: ClassVar[dict[str, float]] = {"max_detections": LVIS_PER_IMAGE}
    ASKS_FEW: ClassVar[bool] = False

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        truth = self.truth()
        detections = self.detections(predictions, extent=0)
        best_of_classes = detections.take(best_per_group(detections.categories, detections.scores, FIXED_PER_CLASS))
        best_of_images = detections.take(best_per_group(detections.images, detections.scores, LVIS_PER_IMAGE))
        fixed_metrics, fixed_table = lvis_ap(truth, best_of_classes)
        metrics, table = lvis_ap(truth, best_of_images)
        for row, fixed_row in zip(table, fixed_table, strict=True):
            row["fixed_ap"] = fixed_row["ap"]
        all_metrics = _prefixed("lvis/fixed_", fixed_metrics) | _prefixed("lvis/", metrics)
        return _score(best_of_classes, all_metrics, table)


def _prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {prefix + name: value for name, value in metrics.items()}


def _score(detections: CocoDetections, metrics: dict[str, float], table: ClassTable) -> Score:
    files = {"detections.json": detections.to_json(), "per_class.json": table}
    return Score(metrics, files, _notes(table))


def _notes(table: ClassTable) -> list[str]:
    """A line of each class; a long table is in its file only."""
    if len(table) > _MOST_NOTED:
        return [f"{len(table)} classes: see per_class.json"]
    lines = []
    for row in table:
        cells = [f"{row['name']:<32}"]
        for key in ("ap", "ap50", "fixed_ap"):
            if key in row:
                cells.append(f"{key} {row[key]:6.2f}")
        lines.append("   ".join(cells))
    return lines
