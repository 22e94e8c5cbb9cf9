"""What is evaluated: numbered items with the truth that predictions are held against."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from fiber_cli.data.text import encode_one
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.tasks.items import EvalItems, Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Score(NamedTuple):
    """`metrics`: flat name → number, percentages as 0 to 100. `files`: name → content of what the task's community
    submits or looks at, text as it is, everything else as JSON. `notes`: lines for the reader, such as what was left
    out and why."""

    metrics: dict[str, float]
    files: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    notes: list[str] = []  # noqa: RUF012


class EvalSet(EvalItems):
    """Items whose predictions have a score. `SCORED_WITHOUT_PREDICTIONS`: whether the score of no predictions has every
    metric that the truth has; `FILES`: the names of the files of its scores."""

    SCORED_WITHOUT_PREDICTIONS: ClassVar[bool] = False
    FILES: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def score(self, predictions: dict[int, Any]) -> Score:
        """The metrics of the task's rows by item number, none where there are none; items without a row could not be
        read."""

    def has_truth(self) -> bool:
        """False where it is known that no item has a truth that predictions could be held against."""
        return True

    def remarks(self) -> list[str]:
        """Lines about the truth that hold whatever is predicted, such as that there is none."""
        return []


class Blind(EvalSet):
    """Another set's items, each with the pixels of an item half the set away: what a model scores that only has the
    text, or that always says the same."""

    def __init__(self, seen: EvalSet):
        self.seen, self.ids, self.left_out = seen, seen.ids, seen.left_out

    def read(self, index: int) -> Item:
        other = (index + len(self) // 2) % len(self)
        return self.seen.read(index) | {"pixels": self.seen.read(other)["pixels"]}

    def score(self, predictions: dict[int, Any]) -> Score:
        return self.seen.score(predictions)

    def has_truth(self) -> bool:
        return self.seen.has_truth()

    def remarks(self) -> list[str]:
        return self.seen.remarks()


class PicturesWithTextSet(EvalSet):
    """Items of one picture or several and a text. A subclass fills `ids`."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", text_length: int, image_size: int | tuple[int, int]):
        self.tokenizer, self.text_length = tokenizer, text_length
        self.transform = EvalTransform(image_size)

    def encode(self, text: str) -> Item:
        """`ids` int64 (L,), `mask` bool (L,) and `truncated`."""
        return {**encode_one(self.tokenizer, text, self.text_length)}


def by_index(predictions: dict[int, np.ndarray]) -> list[tuple[int, np.ndarray]]:
    """(item number, prediction) in the order of the items."""
    return sorted(predictions.items(), key=lambda item: item[0])
