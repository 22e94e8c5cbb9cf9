"""Recall at k of image-text retrieval, both directions (paper Tables 3 and 4)."""

from __future__ import annotations

import numpy as np


def recalls(scores: np.ndarray, text_image: np.ndarray, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """Percentages `ir@k` and `tr@k` from a score matrix.

    scores: (images, texts), higher is better; text_image: int (texts,), the image each text belongs to.
    ir@k: share of texts whose image is among the k best images. tr@k: share of images for which any of their texts
    is among the k best texts. Images without a text do not count in tr. Ties count against the model: a wrong
    candidate that scores the same as the right one stands before it, so a constant score gives no hits. A score of
    -inf means "not retrieved", which is never a hit.
    """
    n_images, n_texts = scores.shape
    if text_image.shape != (n_texts,):
        raise ValueError(f"text_image has shape {text_image.shape}, the scores are for {n_texts} texts")
    if not (scores < np.inf).all():
        raise ValueError("retrieval scores contain NaN or infinity")
    columns = np.arange(n_texts)
    own = scores[text_image, columns]
    # Every wrong image at least as good as the right one stands before it.
    image_rank = np.where(own > -np.inf, (scores >= own[None, :]).sum(0) - 1, np.inf)
    text_rank = np.full(n_images, np.inf)
    order = np.argsort(text_image, kind="stable")
    starts = np.searchsorted(text_image[order], np.arange(n_images + 1))
    for image in range(n_images):
        mine = order[starts[image] : starts[image + 1]]
        if len(mine) and (best := scores[image, mine].max()) > -np.inf:
            text_rank[image] = (scores[image] >= best).sum() - (scores[image, mine] >= best).sum()
    with_text = np.diff(starts) > 0
    result = {f"ir@{k}": 100.0 * float((image_rank < k).mean()) for k in ks}
    result |= {f"tr@{k}": 100.0 * float((text_rank[with_text] < k).mean()) for k in ks}
    return result
