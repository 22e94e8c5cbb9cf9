"""Boxes in pictures, for names and for phrases."""

# Overloads overlap in `str`, which is one picture here although it is a sequence of strings.
# mypy: disable-error-code="overload-overlap"

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, overload

from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.distributed.device import to_device
from fiber_cli.inference import queries
from fiber_cli.inference.arguments import Chunk, Count, Share, Text, Texts, checked, instance_of
from fiber_cli.inference.detections import Detection, best_of_objects, detections_of
from fiber_cli.inference.in_use import InUse, computing
from fiber_cli.inference.pictures import OnError, Picture, PictureReader, one_or_all, pictures_of
from fiber_cli.inference.queries import Query
from fiber_cli.inference.results import Detections
from fiber_cli.tasks.abilities import Detecting
from fiber_cli.tasks.regions.detection_rows import ranked

#: Least score of a detection, where no validation has chosen one.
USUAL_THRESHOLD = 0.3

Prepared = Annotated[Query, instance_of(Query, "what `label_query` or `phrase_query` gave")]


class Finding(InUse):
    """What detectors do."""

    @property
    def threshold(self) -> float:
        """Least score, 0 to 1, of a detection that is reported where none is given: what the checkpoint's validation
        found best (`detection/threshold`), else USUAL_THRESHOLD."""
        chosen = self.loaded.ability(Detecting).threshold
        return USUAL_THRESHOLD if chosen is None else chosen

    def _limits(
        self, threshold: float | None, nms_iou: float | None, agnostic_nms_iou: float | None, top_k: int | None
    ) -> "_Limits":
        return _Limits(self.threshold if threshold is None else threshold, nms_iou, agnostic_nms_iou, top_k)

    @overload
    def detect(
        self,
        images: Picture,
        labels: str | Sequence[str],
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        chunk: int | str = "auto",
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> Detections: ...
    @overload
    def detect(
        self,
        images: Sequence[Picture],
        labels: str | Sequence[str],
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        chunk: int | str = "auto",
        on_error: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detections]: ...
    @overload
    def detect(
        self,
        images: Sequence[Picture],
        labels: str | Sequence[str],
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        chunk: int | str = "auto",
        on_error: Literal["skip"],
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detections | None]: ...
    @checked
    def detect(
        self,
        images: Picture | Sequence[Picture],
        labels: Texts,
        *,
        threshold: Share | None = None,
        nms_iou: Share | None = None,
        agnostic_nms_iou: Share | None = None,
        top_k: Count | None = None,
        chunk: Chunk = "auto",
        on_error: OnError = "raise",
        max_pixels: Count = MAX_PIXELS,
    ) -> Detections | list[Detections] | list[Detections | None]:
        """What is where in each image, best first, see `Detections`. labels: names, or one text such as "cat . traffic
        light" (see `tasks.regions.prompts.parse_prompt`), asked as they are written. More than the text window holds
        are asked in several prompts of at most `chunk` names. The rest: see `find`."""
        query = self.label_query(labels, chunk)
        return self._find(
            images, query, self._limits(threshold, nms_iou, agnostic_nms_iou, top_k), on_error, max_pixels
        )

    @overload
    def ground(
        self,
        images: Picture,
        sentence: str | None = None,
        phrases: str | Sequence[str] | None = None,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> Detections: ...
    @overload
    def ground(
        self,
        images: Sequence[Picture],
        sentence: str | None = None,
        phrases: str | Sequence[str] | None = None,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detections]: ...
    @overload
    def ground(
        self,
        images: Sequence[Picture],
        sentence: str | None = None,
        phrases: str | Sequence[str] | None = None,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: Literal["skip"],
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detections | None]: ...
    @checked
    def ground(
        self,
        images: Picture | Sequence[Picture],
        sentence: Text | None = None,
        phrases: Texts | None = None,
        *,
        threshold: Share | None = None,
        nms_iou: Share | None = None,
        agnostic_nms_iou: Share | None = None,
        top_k: Count | None = None,
        on_error: OnError = "raise",
        max_pixels: Count = MAX_PIXELS,
    ) -> Detections | list[Detections] | list[Detections | None]:
        """Where each phrase of the sentence is in each image, best first: its noun phrases, or those given, a list or a
        text such as "a man; two small dogs", which must be its own words. Phrases without a sentence (None) are asked
        as labels are. The rest: see `find`."""
        query = self.phrase_query(sentence, phrases)
        return self._find(
            images, query, self._limits(threshold, nms_iou, agnostic_nms_iou, top_k), on_error, max_pixels
        )

    @checked
    def label_query(self, labels: Texts, chunk: Chunk = "auto") -> Query:
        """See `detect`. UserError for labels that are empty, given twice, or too long for the model."""
        self.loaded.ability(Detecting)
        query = queries.label_query(self.context, labels, chunk)
        self.warn_of_unseen(query.names)
        return query

    @checked
    def phrase_query(self, sentence: Text | None, phrases: Texts | None = None) -> Query:
        """See `ground`. UserError for a sentence without phrases or too long for the model, and for neither."""
        self.loaded.ability(Detecting)
        query = queries.phrase_query(self.context, sentence, phrases)
        self.warn_of_unseen(query.names if sentence is None else [sentence])
        return query

    @overload
    def find(
        self,
        images: Picture,
        query: Query,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> Detections: ...
    @overload
    def find(
        self,
        images: Sequence[Picture],
        query: Query,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detections]: ...
    @overload
    def find(
        self,
        images: Sequence[Picture],
        query: Query,
        *,
        threshold: float | None = None,
        nms_iou: float | None = None,
        agnostic_nms_iou: float | None = None,
        top_k: int | None = None,
        on_error: Literal["skip"],
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detections | None]: ...
    @checked
    def find(
        self,
        images: Picture | Sequence[Picture],
        query: Prepared,
        *,
        threshold: Share | None = None,
        nms_iou: Share | None = None,
        agnostic_nms_iou: Share | None = None,
        top_k: Count | None = None,
        on_error: OnError = "raise",
        max_pixels: Count = MAX_PIXELS,
    ) -> Detections | list[Detections] | list[Detections | None]:
        """Detections with a score of at least `threshold`, the `top_k` best of each image; of those of one label that
        overlap by more than `nms_iou` the best. By default the checkpoint's own, see `threshold`.
        agnostic_nms_iou: of those of whatever label that overlap by more the best alone, so that an object is found
        once, under its best name (0.8 does that); by default under every name."""
        return self._find(
            images, query, self._limits(threshold, nms_iou, agnostic_nms_iou, top_k), on_error, max_pixels
        )

    @computing
    def _find(
        self, images: Picture | Sequence[Picture], query: Query, limits: "_Limits", on_error: OnError, max_pixels: int
    ) -> Detections | list[Detections] | list[Detections | None]:
        detector = self.loaded.ability(Detecting)
        pictures, single = pictures_of(images)
        reader = PictureReader(single, on_error, max_pixels)
        settings = limits.over(detector.postprocessing)
        detections: dict[int, Detections] = {}
        for numbers, opened in reader.batches(pictures, self.batch_size):
            prompted = to_device(queries.prompted(opened, query, self.context), self.device)
            predictions = detector.predict({**prompted, "postprocessing": settings})
            for number, picture, rows in zip(numbers, opened, predictions, strict=True):
                best_first = ranked(rows.astype(float))
                sure = best_first[best_first[:, 4] >= limits.threshold]
                reported = limits.limited(detections_of(sure, query.names, picture.size), detector.postprocessing)
                detections[number] = Detections.of(reported, picture, pictures[number], max_pixels)
        return one_or_all(detections, len(pictures), is_single=single)


class _Limits(NamedTuple):
    """What is reported, see `Finding.find`."""

    threshold: float
    nms_iou: float | None
    agnostic_nms_iou: float | None
    top_k: int | None

    def over(self, postprocessing: Mapping[str, Any]) -> dict[str, Any]:
        """The checkpoint's settings of `model.detector.postprocess` with these over them."""
        # A score is a probability, or the root of one times another one, so it needs a probability of its square.
        settings = {**postprocessing, "score_threshold": self.threshold**2}
        if self.nms_iou is not None:
            settings["nms_iou"] = self.nms_iou
        if self.agnostic_nms_iou is not None:
            # One object under many names must not take the places of others before they are one.
            settings["max_detections"] = sys.maxsize
        elif self.top_k is not None:
            settings["max_detections"] = self.top_k
        return settings

    def limited(self, detections: list[Detection], postprocessing: Mapping[str, Any]) -> list[Detection]:
        """Of an image's detections, best first, those that are reported."""
        if self.agnostic_nms_iou is not None:
            detections = best_of_objects(detections, self.agnostic_nms_iou)
        return detections[: self.top_k or postprocessing["max_detections"]]
