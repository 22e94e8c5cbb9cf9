"""Recall at k of image-text retrieval, both directions (paper Tables 3 and 4)."""

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
    if not (scores < np.inf).all():
        raise ValueError("retrieval scores contain NaN or infinity")
    own = scores[text_image, np.arange(n_texts)]
    best = np.full(n_images, -np.inf)  # of each image's own texts
    np.maximum.at(best, text_image, own)
    # Everything wrong that is at least as good as what is right stands before it.
    image_rank = np.where(own > -np.inf, (scores >= own).sum(0) - 1, np.inf)
    right = np.bincount(text_image[own >= best[text_image]], minlength=n_images)
    text_rank = np.where(best > -np.inf, (scores >= best[:, None]).sum(1) - right, np.inf)
    with_text = np.bincount(text_image, minlength=n_images) > 0
    result = {f"ir@{k}": 100.0 * float((image_rank < k).mean()) for k in ks}
    result |= {f"tr@{k}": 100.0 * float((text_rank[with_text] < k).mean()) for k in ks}
    return result
