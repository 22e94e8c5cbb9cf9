"""CIDEr-D (Vedantam et al. 2015, section 5), the reward of CIDEr optimisation; `metrics/captions.py` has CIDEr."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fiber_cli.errors import UserError

ORDERS = 4
SIGMA = 6.0


def wrap(caption: str) -> str:
    """A caption as the reward reads it, as published: without its final full stop, closed by a token of its own."""
    return caption.strip().removesuffix(".") + " <eos>"


def ngrams(text: str) -> list[Counter[str]]:
    """How often each n-gram of whitespace-separated words occurs, for n = 1 to 4, words joined by one space."""
    words = text.split()
    return [Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1)) for n in range(1, ORDERS + 1)]


def document_frequency(references: Sequence[Iterable[str]]) -> dict[str, Any]:
    """The number of images as "ref_len", and under "document_frequency" that of the images whose references hold
    each n-gram. references: those of each image; for the reward as `wrap` gives them."""
    frequency = Counter()
    for texts in references:
        frequency.update({gram for text in texts for counts in ngrams(text) for gram in counts})
    return {"ref_len": float(len(references)), "document_frequency": dict(frequency)}


def write_document_frequency(path: str | Path, table: dict[str, Any]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")


def read_document_frequency(path: str | Path) -> dict[str, Any]:
    """Inverse of `write_document_frequency`; UserError for a file that cannot be read or is of another form."""
    try:
        content = json.loads(Path(path).read_bytes())
        table = {key: content[key] for key in ("ref_len", "document_frequency")}
        sizes = [table["ref_len"], *table["document_frequency"].values()]
        if not (all(isinstance(size, int | float) for size in sizes) and table["ref_len"] > 0):
            raise ValueError("frequencies must be numbers, and ref_len positive")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: no table of document frequencies ({type(error).__name__}: {error}); make one from the training "
            'captions: {"ref_len": number of images, "document_frequency": {n-gram: number of images, …}}'
        ) from None
    return table


class CiderD:
    """Scores captions by their n-grams, each weighted by its rarity in the `ref_len` images of a table like
    `document_frequency`'s."""

    def __init__(self, ref_len: float, document_frequency: dict[str, float]):
        self._frequency, self._log_images = document_frequency, math.log(ref_len)

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """float64 (captions,), 0 to 10. hypotheses: equally many of each image, one image's side by side;
        references: those of each image, at least one."""
        each = len(hypotheses) // len(references)
        assert len(hypotheses) == each * len(references)
        scores = []
        for image, texts in enumerate(references):
            truth = [self._vector(text) for text in texts]
            for text in hypotheses[image * each : (image + 1) * each]:
                ours = self._vector(text)
                scores.append(10 * sum(_similarity(ours, theirs) for theirs in truth) / ORDERS / len(truth))
        return np.array(scores)

    def _vector(self, text: str) -> tuple[list[dict[str, float]], list[float], int]:
        """The weight of each n-gram and the vector's norm, for each n; and the number of bigrams, CIDEr-D's length."""
        counts = ngrams(text)
        images = self._frequency.get
        weights = [
            {gram: count * (self._log_images - math.log(max(1, images(gram, 0)))) for gram, count in grams.items()}
            for grams in counts
        ]
        return weights, [math.sqrt(sum(w * w for w in each.values())) for each in weights], counts[1].total()


def _similarity(hypothesis: tuple, reference: tuple) -> float:
    """The sum over n of the clipped cosine of two `_vector`s, less for captions of different lengths."""
    (weights, norms, length), (other_weights, other_norms, other_length) = hypothesis, reference
    total = 0.0
    for ours, theirs, norm in zip(weights, other_weights, np.multiply(norms, other_norms).tolist()):
        product = sum(min(weight, theirs[gram]) * theirs[gram] for gram, weight in ours.items() if gram in theirs)
        total += product / norm if norm else product
    return total * math.exp(-((length - other_length) ** 2) / (2 * SIGMA**2))


class CiderReward:
    """CIDEr-D of generated token rows, as `CaptionTask` asks for it."""

    def __init__(self, scorer: CiderD, tokenizer: Any):
        self.scorer, self.tokenizer = scorer, tokenizer

    def __call__(self, ids: Tensor, references: Sequence[Sequence[str]]) -> np.ndarray:
        texts = self.tokenizer.batch_decode(ids.tolist(), skip_special_tokens=True)
        return self.scorer([wrap(text) for text in texts], [[wrap(text) for text in own] for own in references])
