"""Which names of a detection data set stand in a training prompt (as in the published fine stage)."""

from collections.abc import Sequence

import numpy as np

from fiber_cli.data.coco_json import BACKGROUND

#: Chances of the published training: one negative, none, as many as allowed; else a uniform number of them.
CONTROL = (0.05, 0.05, 0.5)
#: Labels of a short prompt, at most.
SHORT = 3


def sample_labels(
    positives: Sequence[int] | np.ndarray,
    names: Sequence[str],
    lengths: Sequence[int],
    rng: np.random.Generator,
    *,
    budget: int,
    negatives: int = 85,
    control: tuple[float, float, float] = CONTROL,
    draw_background: bool = False,
    absent: tuple[float, float] = (0, 0),
    most_positives: int | None = None,
    short: float = 0,
) -> list[int]:
    """Labels of a training prompt in their order: those in the picture, and others that are not.

    lengths: tokens of each name with its separator; budget: tokens for all. Positives are taken in random order until
    one does not fit, then so many labels are drawn as `control` says, at most `negatives`, and those of them that are
    not in the picture are taken until one does not fit. `draw_background` lets `__background__` be drawn, as published.
    absent: the range of the chance, drawn for every prompt, with which each positive is left out; most_positives: how
    many of them stand in a prompt at most, None = as many as fit. short: the chance that
    the prompt keeps its first labels alone, one to SHORT, as people ask for.
    """
    chosen: list[int] = []
    room = budget
    for label in _some(np.unique(positives), absent, rng)[:most_positives]:
        room -= lengths[label]
        if room < 0:
            break
        chosen.append(label)
    pool = [label for label, name in enumerate(names) if draw_background or name != BACKGROUND]
    count = _draw_count(min(negatives, len(pool)), control, rng)
    others = set(pool).difference(positives)
    for label in rng.choice(pool, count, replace=False).tolist():
        if label in others:
            room -= lengths[label]
            if room <= 0:
                break
            chosen.append(label)
    if not chosen and others and absent[1] > 0:
        chosen.append(int(rng.choice(sorted(others))))  # a prompt asks for something
    labels: list[int] = rng.permutation(np.array(chosen, np.int64)).tolist()
    if short > 0 and rng.random() < short:
        labels = labels[: rng.integers(1, SHORT + 1)]
    return labels


def _some(positives: np.ndarray, absent: tuple[float, float], rng: np.random.Generator) -> list[int]:
    """The positives in random order, each left out with a chance from the range."""
    least, most = absent
    if most == 0:
        return rng.permutation(positives).tolist()
    chance = rng.uniform(least, most)
    is_kept = rng.random(len(positives)) >= chance
    return rng.permutation(positives[is_kept]).tolist()


def _draw_count(most: int, control: tuple[float, float, float], rng: np.random.Generator) -> int:
    """How many labels are drawn, of at most `most`."""
    fate = rng.random()
    below_one, below_none, below_most = np.cumsum(control)
    if fate < below_one:
        return min(1, most)
    if fate < below_none:
        return 0
    if fate < below_most or most == 0:
        return most
    return int(rng.integers(1, most + 1))
