"""The rows of what a region task predicts."""

import numpy as np


def ranked(detections: np.ndarray) -> np.ndarray:
    """Rows (n, 6) of x1, y1, x2, y2, score, label, best score first; of equal ones the greater box, as published."""
    score_then_box = detections[:, [3, 2, 1, 0, 4]].T
    return detections[np.lexsort(score_then_box)[::-1]]
