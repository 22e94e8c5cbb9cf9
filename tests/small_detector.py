"""A detector that takes seconds and finds much, and what its results are compared by."""

from pathlib import Path

import numpy as np
import pytest
from commands import command

LABELS = ["red circle", "Star", "traffic_light_(big)", "dog"]
PROMPT = " . ".join(LABELS)
#: Sides of a picture in pixels, tokens of a text, detections of a picture.
SHORT, LONGEST, LENGTH, MOST = 96, 160, 40, 20


def assert_same(detections, expected):
    """Same labels in the same order, scores and boxes within rounding."""
    assert [one[:2] for one in detections] == [one[:2] for one in expected]
    assert [one.score for one in detections] == pytest.approx([one.score for one in expected], abs=1e-5)
    np.testing.assert_allclose([one.box for one in detections], [one.box for one in expected], atol=2e-3)


def detect(capsys, run: Path, *argv) -> tuple[int, str, str]:
    """`fiber detect ARGV` with the checkpoint of `run` and no threshold."""
    return command(capsys, "detect", *argv, "--checkpoint", run, "--threshold", "0")
