"""The base of the evaluation sets of region-level tasks: images, and the prompts that they are asked."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from fiber_cli.data.records import Size
from fiber_cli.data.source import BadSample, RegionSource, sample_id
from fiber_cli.model.pixels import padded
from fiber_cli.tasks.evalset import EvalSet
from fiber_cli.tasks.regions.data import region_image
from fiber_cli.tasks.regions.prompt_batch import PromptBatch
from fiber_cli.tasks.regions.transforms import RegionTransform

#: Detections of an image without any, as `RegionTask.predict` gives them.
NO_DETECTIONS = np.empty((0, 6), np.float32)


class RegionSet(EvalSet):
    """Images, by their number in the source, and prompts that they are asked.

    `POSTPROCESSING` is put over the task's own settings, where a benchmark asks for others; `LABELS_APART`: see
    `postprocess_apart`.

    A prediction is one array (n, 6) per item: x1, y1, x2, y2 in pixels of the original image, named by their first
    and last pixel, score, label.
    """

    SCORED_WITHOUT_PREDICTIONS: ClassVar[bool] = True
    POSTPROCESSING: ClassVar[dict[str, float]] = {}
    LABELS_APART: ClassVar[bool] = False

    def __init__(self, source: RegionSource, chosen: Sequence[int], short: int, longest: int):
        self.source: RegionSource = source
        self.chosen = list(chosen)
        self.short = short
        self.transform = RegionTransform((short,), longest, flip=0)
        self.ids = [sample_id(source, i) for i in self.chosen]

    def share(self, rank: int, world: int) -> Sequence[int]:
        return self._order[rank::world]

    @cached_property
    def _order(self) -> list[int]:
        """Images that pad to one size follow each other, because they share a pass of the model."""
        return sorted(range(len(self)), key=self._padded_size)

    def _padded_size(self, index: int) -> Size | tuple[()]:
        try:
            size = self.source.regions(self.chosen[index]).size
            if size is None:
                return ()
            height, width = self.transform.new_size(size, self.short)
            return padded(height), padded(width)
        except (BadSample, TypeError):
            return ()  # told where the image is read

    def remarks(self) -> list[str]:
        name = self.source.name
        thin = self.source.scored_all_the_same
        without_area = self.source.dropped - thin
        remarks = []
        if without_area:
            remarks.append(f"{without_area} boxes of {name} without an area inside their image are not scored")
        if thin:
            remarks.append(f"{thin} boxes of {name} at most a pixel wide or high are scored, though not trained on")
        if not self.source.annotated:
            remarks.append(f"{name} has no annotations: predicted only")
        return remarks

    def read(self, index: int) -> dict[str, Any]:
        i = self.chosen[index]
        image = region_image(self.source, i, self.source.regions(i).size)
        pixels, _, _ = self.transform(image, NO_DETECTIONS[:, :4])
        return {"pixels": pixels, "original_size": torch.tensor([image.height, image.width])}

    @abstractmethod
    def prompt_batch(self, indices: list[int]) -> PromptBatch:
        """What the images of these items are asked."""

    def collate(self, indices: list[int], items: list[dict[str, Any]]) -> dict[str, Any]:
        """As `PromptBatch.with_images`, `truncated` (how many prompts were cut), `postprocessing` and
        `labels_apart`."""
        prompts = self.prompt_batch(indices)
        pixels = [item["pixels"] for item in items]
        original_sizes = [item["original_size"] for item in items]
        return {
            **prompts.with_images(pixels, original_sizes),
            "truncated": prompts.truncated,
            "postprocessing": self.POSTPROCESSING,
            "labels_apart": self.LABELS_APART,
        }
