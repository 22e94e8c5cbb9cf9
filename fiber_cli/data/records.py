"""What sources yield of their samples, beside pictures: questions, statements, boxes with names, phrases with boxes.

Boxes are float32 (n, 4), xyxy edges in pixels of the upright picture: x2 - x1 is the width. Sizes are (height, width)
in pixels, None where the annotations do not tell. A span is [start, end) in characters of a text.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

Span = tuple[int, int]
Size = tuple[int, int]

#: How many people answer a question of VQAv2.
ANNOTATORS = 10


class Question(NamedTuple):
    """answers: one of each annotator, none where they are not known. answer_type: "yes/no", "number" or "other"."""

    text: str
    answers: tuple[str, ...]
    question_id: int | str
    answer_type: str
    question_type: str


class Statement(NamedTuple):
    """label: None where it is not known. group: equal for what counts together in the consistency of NLVR2.
    statement_type: what it takes to judge it, where that is known."""

    text: str
    label: bool | None
    identifier: str
    group: str
    statement_type: str | None = None


class PhraseBoxes(NamedTuple):
    """A caption, its boxes, and for each box the spans of the caption that name it."""

    caption: str
    boxes: "np.ndarray"
    spans: list[list[Span]]
    size: Size | None = None


class NamedBoxes(NamedTuple):
    """Boxes and their labels, int64 (n,), numbers of the source's category names."""

    boxes: "np.ndarray"
    labels: "np.ndarray"
    size: Size | None = None


Regions = PhraseBoxes | NamedBoxes


class Phrase(NamedTuple):
    """A phrase that is looked for: its span, its boxes as the evaluation takes them, its types."""

    span: Span
    boxes: "np.ndarray"
    types: tuple[str, ...] = ()
