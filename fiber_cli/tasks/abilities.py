"""What inference can ask of a trained task, as types.

A task's module is derived from its abilities, its declaration lists them, and a checkpoint is asked for one by
`checkpoints.loading.Loaded.ability`. This module loads no torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from fiber_cli.tasks.thresholds import Thresholds

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fiber_cli.model.fusion import FusedEncoder, ImageStem, TextStem


class Ability(ABC):
    """Something that a task can do. `needs`: what a checkpoint must have for it, in words; `used_by`: the command for
    one's own pictures."""

    needs: ClassVar[str]
    used_by: ClassVar[str]
    encoder: "FusedEncoder"


class Embedding(Ability):
    """The dual encoder: features of images and of texts whose products are cosines."""

    needs = "dual-encoder features (task.itc > 0)"
    used_by = "fiber rerank"
    #: Of the sum that searches rank by, the cosine times `logit_scale` plus the matched logit, of a checkpoint without
    #: fusion the cosine times `logit_scale` alone; none where no validation has chosen one.
    search_thresholds: Thresholds = Thresholds()

    @abstractmethod
    def image_features(self, stem: "ImageStem") -> "Tensor":
        """Float32 (B, D), L2 norm 1."""

    @abstractmethod
    def text_features(self, stem: "TextStem") -> "Tensor":
        """Float32 (B, D), L2 norm 1."""

    @abstractmethod
    def logit_scale(self) -> float:
        """What cosines are multiplied by to be the logits of training: 1 / temperature."""


class Matching(Ability):
    """The fusion encoder's judgement of pairs."""

    needs = "an ITM head (task.itm > 0)"
    used_by = "fiber rerank"
    #: Of the matched logit; none where no validation has chosen one.
    match_thresholds: Thresholds = Thresholds()

    @abstractmethod
    def match(self, image: "ImageStem", text: "TextStem", *, pooled: bool = False) -> "Tensor":
        """ITM logits (B, 2) of the pairs (image b, text b); index 1 is "matched". pooled: see `FusedEncoder.fuse`."""


class BestTexts(NamedTuple):
    """The best texts of each of B inputs, best first. rows: (B, K) numbers of answers, or tokens (B, K, L), padded, as
    int64; scores: float32 (B, K), 0 to 1, 0 where there are fewer than K."""

    rows: "Tensor"
    scores: "Tensor"


class Answering(Ability):
    """Answers to questions, out of a closed list or generated."""

    needs = "answers to questions"
    used_by = "fiber answer"

    @abstractmethod
    def answer(self, image: "ImageStem", ids: "Tensor", mask: "Tensor") -> "Tensor":
        """Of the pairs (image b, question b), ids int64 and mask bool (B, L): the rows that `predict` gives, which
        `tasks.vqa.answers` puts in words."""

    @abstractmethod
    def best_answers(self, image: "ImageStem", ids: "Tensor", mask: "Tensor", count: int) -> BestTexts:
        """The `count` best answers of each pair, the first of them that of `answer`; of a closed list no more than it
        has. Scores: of a closed list the sigmoid of the logit, of generated texts the geometric mean of their tokens'
        probabilities."""


class Captioning(Ability):
    """Captions of images."""

    needs = "a captioner"
    used_by = "fiber caption"

    @abstractmethod
    def caption_pixels(
        self, pixels: "Tensor", *, beam: int | None = None, as_published: bool | None = None
    ) -> "Tensor":
        """Captions of pixels uint8 (B, 3, H, W): token ids int64 (B, L), padded. beam, as_published: see
        `model.beam_search`; None: as the task's settings have it."""

    @abstractmethod
    def best_captions(
        self, pixels: "Tensor", count: int, *, beam: int | None = None, as_published: bool | None = None
    ) -> BestTexts:
        """The `count` best captions that the search ends with. Scores: the geometric mean of their tokens'
        probabilities. The rest: see `caption_pixels`."""


class Detecting(Ability):
    """Boxes for labels and for phrases."""

    needs = "a detector"
    used_by = "fiber detect"
    #: Settings of `model.detector.postprocess`, by name.
    postprocessing: Mapping[str, Any]
    #: Least score of what users are shown; None where no validation has chosen one.
    threshold: float | None

    @abstractmethod
    def predict(self, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Detections of every image, see `tasks.regions.task.RegionTask.predict`."""
