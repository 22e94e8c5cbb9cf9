"""Accuracy of visual entailment."""

from collections.abc import Sequence


def accuracy(predicted: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """The percentage that is right."""
    right = sum(one == other for one, other in zip(predicted, labels, strict=True))
    return {"entailment/accuracy": 100.0 * right / len(labels)}
