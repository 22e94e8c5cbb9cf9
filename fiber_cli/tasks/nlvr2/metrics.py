"""Accuracy and consistency of NLVR2."""

from collections import defaultdict
from collections.abc import Hashable, Sequence


def accuracies(
    predicted: Sequence[bool],
    labels: Sequence[bool],
    groups: Sequence[Hashable],
    types: Sequence[str | None] | None = None,
) -> dict[str, float]:
    """Percentages, one element of each argument per statement; none without statements.

    `nlvr2/accuracy`; `nlvr2/consistency`: the share of groups in which all are right; `nlvr2/majority`: the accuracy
    of always giving the more common label; `nlvr2/statement/…`: the accuracy by type of statement, where types are
    known.
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
    right_of: dict[str, list[bool]] = defaultdict(list)
    known = [None] * len(right) if types is None else types
    for statement_type, is_right in zip(known, right, strict=True):
        if statement_type is not None:
            right_of[statement_type].append(is_right)
    for statement_type, of_type in right_of.items():
        shares[f"statement/{statement_type}"] = sum(of_type) / len(of_type)
    return {f"nlvr2/{name}": 100.0 * share for name, share in shares.items()}
