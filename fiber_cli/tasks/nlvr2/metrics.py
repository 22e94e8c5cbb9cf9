"""Accuracy and consistency of NLVR2."""

from collections.abc import Hashable, Sequence


def accuracies(predicted: Sequence[bool], labels: Sequence[bool], groups: Sequence[Hashable]) -> dict[str, float]:
    """Percentages, one element of each argument per statement; none without statements.

    `nlvr2/accuracy`; `nlvr2/consistency`: the share of groups in which all are right; `nlvr2/majority`: the accuracy
    of always giving the more common label.
    """
    if not labels:
        return {}
    right = [a == b for a, b in zip(predicted, labels, strict=True)]
    failed = {group for group, good in zip(groups, right, strict=True) if not good}
    true = sum(labels) / len(labels)
    shares = {
        "accuracy": sum(right) / len(right),
        "consistency": len(set(groups) - failed) / len(set(groups)),
        "majority": max(true, 1 - true),
    }
    return {f"nlvr2/{name}": 100.0 * share for name, share in shares.items()}
