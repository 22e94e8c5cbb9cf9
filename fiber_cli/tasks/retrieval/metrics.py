"""Recall at k of image-text retrieval, both directions (paper Tables 3 and 4)."""

import numpy as np

#: How many of the best candidates may hold the right one.
KS = (1, 5, 10)


def recalls(scores: np.ndarray, text_image: np.ndarray, ks: tuple[int, ...] = KS) -> dict[str, float]:
    """Percentages `ir@k` and `tr@k` from a score matrix.

    scores: (images, texts), higher is better; text_image: int (texts,), the image each text belongs to.
    ir@k: share of texts whose image is among the k best images. tr@k: share of images for which any of their texts
    is among the k best texts. Images without a text do not count in tr. Ties count against the model: a wrong
    candidate that scores the same as the right one stands before it, so a constant score gives no hits. A score of
    -inf means "not retrieved", which is never a hit.
    """
    if not (scores < np.inf).all():
        raise ValueError("retrieval scores contain NaN or infinity")
    image_rank = _ranks_of_images(scores, text_image)
    text_rank = _ranks_of_texts(scores, text_image)
    with_text = np.unique(text_image)
    result = {}
    for k in ks:
        result[f"ir@{k}"] = _share_within(image_rank, k)
    for k in ks:
        result[f"tr@{k}"] = _share_within(text_rank[with_text], k)
    return result


def chance_notes(text_image: np.ndarray, ks: tuple[int, ...] = KS) -> list[str]:
    """Lines about recalls that no scores can miss, because there are too few wrong candidates. text_image: int
    (texts,), at least one, see `recalls`."""
    _, texts_of_images = np.unique(text_image, return_counts=True)
    images, texts = len(texts_of_images), len(text_image)
    most_wrong = {"ir": images - 1, "tr": texts - int(texts_of_images.min())}
    candidates = {"ir": f"{images} images", "tr": f"{texts} texts"}
    notes = []
    for direction, wrong in most_wrong.items():
        sure = [f"{direction}@{k}" for k in ks if k > wrong]
        if sure:
            notes.append(
                f"{', '.join(sure)} of whole rankings cannot be missed, whatever the scores: "
                f"there are {candidates[direction]} to choose from"
            )
    return notes


def _share_within(rank: np.ndarray, k: int) -> float:
    """Percentage of ranks, from 0, below k."""
    return 100.0 * float((rank < k).mean())


def _ranks_of_images(scores: np.ndarray, text_image: np.ndarray) -> np.ndarray:
    """The rank of each text's image, from 0: how many wrong images are at least as good. inf: not retrieved."""
    right = scores[text_image, np.arange(len(text_image))]
    before = (scores >= right).sum(0) - 1
    return np.where(right > -np.inf, before, np.inf)


def _ranks_of_texts(scores: np.ndarray, text_image: np.ndarray) -> np.ndarray:
    """The rank of each image's best right text, from 0: how many wrong texts are at least as good. inf: not retrieved,
    or without a text."""
    images = len(scores)
    right = scores[text_image, np.arange(len(text_image))]
    best = np.full(images, -np.inf)
    np.maximum.at(best, text_image, right)
    as_good = (scores >= best[:, None]).sum(1)
    is_best = right >= best[text_image]
    right_as_good = np.bincount(text_image[is_best], minlength=images)
    return np.where(best > -np.inf, as_good - right_as_good, np.inf)
