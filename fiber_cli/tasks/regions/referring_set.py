"""Evaluation of referring expressions: a whole text is one phrase, with one box."""

from typing import ClassVar

import numpy as np

from fiber_cli.data.records import NamedBoxes, Phrase
from fiber_cli.data.source import BadSample, PhraseSource
from fiber_cli.tasks.evalset import Score
from fiber_cli.tasks.regions.metrics import ExpressionDetections, referring_accuracy
from fiber_cli.tasks.regions.phrase_set import TextRegionSet


class ReferringSet(TextRegionSet):
    """Accuracy of the first box, and recall among the first ones, over expressions."""

    POSTPROCESSING: ClassVar[dict[str, float]] = {"score_threshold": 0.0, "pre_nms_topk": 3000}

    def text(self, source: PhraseSource, i: int) -> tuple[str, list[Phrase]]:
        regions = source.regions(i)
        if isinstance(regions, NamedBoxes):
            raise BadSample("has boxes of categories, but no expression")
        if source.annotated and len(regions.boxes) != 1:
            raise BadSample(f"an expression has one box, this has {len(regions.boxes)}")
        whole_caption = (0, len(regions.caption))
        return regions.caption, [Phrase(whole_caption, regions.boxes)]

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        results = []
        answers = []
        for index, detections in enumerate(self.ranked_predictions(predictions)):
            _, (expression,) = self.texts[index]
            if len(expression.boxes):  # none in a file without annotations
                results.append(ExpressionDetections(detections, expression.boxes[0]))
            boxes = detections[:, :4].tolist()
            answers.append({"id": self.key(index), "boxes": boxes, "scores": detections[:, 4].tolist()})
        return Score(referring_accuracy(results), {"expressions.json": answers})
