"""Predictions of boxes, made from the truth."""

import numpy as np


def perfect(source, chosen, label):
    """Predictions that are right: boxes of first and last pixels, each with its label."""
    rows = {}
    for n, i in enumerate(chosen):
        boxes = source.regions(i).boxes - [0, 0, 1, 1]
        rows[n] = np.c_[boxes, np.linspace(0.9, 0.5, len(boxes)), label(i)]
    return rows
