"""Recall at k: what is not retrieved or only ties is no hit."""

import numpy as np
import pytest

from fiber_cli.tasks.retrieval.metrics import chance_notes, recalls


def test_recalls_by_hand():
    """Image 0 has texts 0 and 1, image 1 has text 2, image 2 has none."""
    scores = np.array([[3.0, 1.0, 0.5], [2.0, 4.0, 1.0], [1.0, 2.0, 2.0]])
    values = recalls(scores, np.array([0, 0, 1]), ks=(1, 2, 3))
    # Ranks of the right image: 1, 3, 2. Ranks of the best right text: 1 of image 0, 3 of image 1.
    assert values == pytest.approx({"ir@1": 100 / 3, "ir@2": 200 / 3, "ir@3": 100, "tr@1": 50, "tr@2": 50, "tr@3": 100})


def test_a_constant_score_is_worth_nothing():
    values = recalls(np.zeros((20, 20)), np.arange(20))
    assert set(values.values()) == {0.0}


def test_candidates_outside_the_best_are_not_retrieved():
    """Two images, so that even the last place would be a hit at 5."""
    scores = np.array([[-np.inf, 1.0], [2.0, -np.inf]])
    assert set(recalls(scores, np.array([0, 1])).values()) == {0.0}
    with pytest.raises(ValueError, match="NaN"):
        recalls(np.array([[np.nan, 1.0], [2.0, 1.0]]), np.array([0, 1]))


def test_recalls_that_cannot_be_missed_are_told():
    """Whatever the scores, recalls of the notes are 100, and the others can be 0."""
    for owner in ([0], [0, 1], [0, 0, 1, 1, 1], list(range(7)), [*range(10), 0], list(range(12))):
        text_image = np.array(owner)
        images = len(set(owner))
        worst = np.ones((images, len(owner)))
        worst[text_image, np.arange(len(owner))] = 0
        sure = {name for name, value in recalls(worst, text_image).items() if value == 100}
        told = " ".join(chance_notes(text_image))
        assert sure == {name for name in recalls(worst, text_image) if f"{name}," in told or f"{name} " in told}, owner
    assert chance_notes(np.arange(12)) == []
