"""Evaluation of referring expressions: a text is for one box.

Training aligns the box with the words that its annotation names, `tokens_positive`, in the RefCOCO family the root noun
alone; so these words score a box, as in the published evaluation. The mean over the whole expression is the other
protocol, measured beside it.
"""

from typing import ClassVar, NamedTuple

import numpy as np

from fiber_cli.data.box_edges import has_area_inside
from fiber_cli.data.records import NamedBoxes, Phrase, Span
from fiber_cli.data.source import BadSample, PhraseSource
from fiber_cli.tasks.evalset import Score
from fiber_cli.tasks.regions.metrics import ExpressionDetections, referring_accuracy
from fiber_cli.tasks.regions.phrase_set import TextRegionSet
from fiber_cli.tasks.regions.prompts import Prompt

#: Before the names of the metrics by the whole expression, behind "refexp/".
WHOLE_EXPRESSION = "whole_expression/"


class _Protocol(NamedTuple):
    """Which label of a text scores its boxes, and what the names of its metrics begin with."""

    label: int
    prefix: str


_PROTOCOLS = (_Protocol(0, ""), _Protocol(1, WHOLE_EXPRESSION))


class ReferringSet(TextRegionSet):
    """Accuracy of the first box, and recall among the first ones, over expressions. Every text has two labels: the
    words of `tokens_positive`, and all its words."""

    FILES: ClassVar[tuple[str, ...]] = ("expressions.json",)
    POSTPROCESSING: ClassVar[dict[str, float]] = {"score_threshold": 0.0, "pre_nms_topk": 3000}
    LABELS_APART: ClassVar[bool] = True

    def text(self, source: PhraseSource, i: int) -> tuple[Prompt, list[Phrase]]:
        """An expression none of whose words are named has all of them under both labels. A box without an area inside
        its image, which nothing can find, is none."""
        regions = source.regions(i)
        if isinstance(regions, NamedBoxes):
            raise BadSample("has boxes of categories, but no expression")
        has_area = has_area_inside(regions.boxes, regions.size)
        boxes = regions.boxes[has_area]
        if source.annotated and len(boxes) != 1:
            raise BadSample(f"an expression has one box, this has {len(boxes)}")
        whole = _without_spaces(regions.caption)
        # A file without annotations names none.
        named = next((spans for spans, is_box in zip(regions.spans, has_area, strict=True) if is_box), [])
        return Prompt(regions.caption, [named or [whole], [whole]]), [Phrase(whole, boxes)]

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        ranked_predictions = self.ranked_predictions(predictions)
        metrics: dict[str, float] = {}
        for protocol in _PROTOCOLS:
            results = []
            for index, detections in enumerate(ranked_predictions):
                _, (expression,) = self.texts[index]
                if len(expression.boxes):
                    scored = _of_label(detections, protocol.label)
                    results.append(ExpressionDetections(scored, expression.boxes[0]))
            metrics |= referring_accuracy(results, protocol.prefix)
        answers = []
        for index, detections in enumerate(ranked_predictions):
            scored = _of_label(detections, 0)
            answers.append({"id": self.key(index), "boxes": scored[:, :4].tolist(), "scores": scored[:, 4].tolist()})
        return Score(metrics, {"expressions.json": answers}, self._notes())

    def _notes(self) -> list[str]:
        notes = [
            "refexp/… scores boxes by the words of tokens_positive, the published protocol; "
            f"refexp/{WHOLE_EXPRESSION}… by the mean over the whole expression"
        ]
        unnamed = sum(self._has_no_named_words(i) for i in self.chosen)
        if unnamed:
            notes.append(
                f"{unnamed} of {len(self)} expressions have no tokens_positive: scored by the whole expression in both"
            )
        return notes

    def _has_no_named_words(self, i: int) -> bool:
        regions = self.source.regions(i)
        return not isinstance(regions, NamedBoxes) and not any(regions.spans)


def _without_spaces(caption: str) -> Span:
    """From the first to the last character that is none."""
    start = len(caption) - len(caption.lstrip())
    return start, start + len(caption.strip())


def _of_label(detections: np.ndarray, label: int) -> np.ndarray:
    return detections[detections[:, 5] == label]
