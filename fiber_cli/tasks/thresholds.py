"""Least scores of what is likely to be true, by the lengths of texts. This module loads no torch."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from fiber_cli.data.words import words_of


class Threshold(NamedTuple):
    """least: score of a picture that a text is likely to be true of. fewest, most: words of the texts that it was
    chosen by; scores of shorter and longer ones are others."""

    least: float
    fewest: float
    most: float

    @classmethod
    def of(cls, least: float | None, fewest: float | None, most: float | None) -> "Threshold | None":
        """None without a least score; a limit that is not given is none."""
        if least is None:
            return None
        return cls(least, fewest or 0, math.inf if most is None else most)

    def distance(self, words: int) -> float:
        """How many words a text has too few or too many, 0 within the limits."""
        return max(self.fewest - words, words - self.most, 0)


@dataclass(frozen=True)
class Thresholds:
    """Thresholds for texts of different lengths; of lengths that two are for, the first holds."""

    of_lengths: tuple[Threshold, ...] = ()

    @classmethod
    def of(cls, *given: Threshold | None) -> "Thresholds":
        """Those that are there."""
        return cls(tuple(each for each in given if each is not None))

    def least(self, text: str) -> float | None:
        """The least score of a text; between two ranges of lengths that of the nearer one, None for shorter and longer
        texts than of all, of which nothing is known."""
        words = len(words_of(text))
        not_too_long = any(words <= each.most for each in self.of_lengths)
        not_too_short = any(words >= each.fewest for each in self.of_lengths)
        if not (not_too_long and not_too_short):
            return None
        nearest = min(self.of_lengths, key=lambda each: each.distance(words))
        return nearest.least

    @property
    def of_longest(self) -> float | None:
        """The least score of the longest texts."""
        return max(self.of_lengths, key=lambda each: each.most).least if self.of_lengths else None
