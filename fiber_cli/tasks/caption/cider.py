"""CIDEr-D (Vedantam et al. 2015, section 5), the reward of CIDEr optimisation; `metrics` has CIDEr."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.outputs import Outputs
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import read_regular
from fiber_cli.text_files import dump_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ORDERS = 4
#: More than any table counts.
_MOST_IMAGES = 1e15
SIGMA = 6.0


def wrap(caption: str) -> str:
    """A caption as the reward reads it, as published: without its final full stop, closed by a token of its own."""
    return caption.strip().removesuffix(".") + " <eos>"


def ngrams(text: str) -> list[Counter[str]]:
    """How often each n-gram of whitespace-separated words occurs, for n = 1 to 4, words joined by one space."""
    words = text.split()
    counts = []
    for order in range(1, ORDERS + 1):
        starts = range(len(words) - order + 1)
        counts.append(Counter(" ".join(words[i : i + order]) for i in starts))
    return counts


class DocumentFrequency(NamedTuple):
    """`ref_len`: the number of images; `document_frequency`: in how many of them a reference has an n-gram."""

    ref_len: float
    document_frequency: Mapping[str, float]


def document_frequency(references: Sequence[Iterable[str]]) -> DocumentFrequency:
    """Of all n-grams of the references, those of each image; for the reward as `wrap` gives them."""
    images: Counter[str] = Counter()
    for texts in references:
        grams: set[str] = set()
        for text in texts:
            grams.update(*ngrams(text))
        images.update(grams)
    return DocumentFrequency(float(len(references)), dict(images))


def write_document_frequency(path: str | Path, table: DocumentFrequency, outputs: Outputs | None = None) -> None:
    """As JSON. UserError where it may not or cannot be written."""
    (outputs or Outputs()).write(Path(path), dump_json(table._asdict()))


def read_document_frequency(path: str | Path) -> DocumentFrequency:
    """Inverse of `write_document_frequency`; UserError for a file that cannot be read or is of another form."""
    try:
        return _parsed(parse_json(read_regular(path)))
    except (OSError, *WRONG_CONTENT) as error:
        raise UserError(
            f"{path}: no table of document frequencies ({type(error).__name__}: {error}); make one by "
            '`fiber cider-df --recipe RECIPE`: {"ref_len": number of images, "document_frequency": {n-gram: …}}'
        ) from None


def _parsed(content: Any) -> DocumentFrequency:
    table = DocumentFrequency(content["ref_len"], content["document_frequency"])
    sizes = [table.ref_len, *table.document_frequency.values()]
    if not all(map(_is_count, sizes)) or table.ref_len <= 1:
        raise ValueError("frequencies must be finite numbers from 0, and ref_len above 1, or every reward is 0")
    return table


def _is_count(size: Any) -> bool:
    return isinstance(size, int | float) and not isinstance(size, bool) and 0 <= size <= _MOST_IMAGES


class _Vector(NamedTuple):
    """A text for CIDEr-D. For each n: the weight of each n-gram, and the vector's norm. length: its bigrams."""

    weights: list[dict[str, float]]
    norms: list[float]
    length: int


class CiderD:
    """Scores captions by their n-grams, each weighted by its rarity in the images of a table."""

    def __init__(self, table: DocumentFrequency):
        self._frequency = table.document_frequency
        self._log_images = math.log(table.ref_len)

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """float64 (captions,), 0 to 10. hypotheses: equally many of each image, one image's side by side;
        references: those of each image, at least one."""
        captions_per_image = len(hypotheses) // len(references)
        assert len(hypotheses) == captions_per_image * len(references)
        scores = []
        for image, texts in enumerate(references):
            truth = list(map(self._vector, texts))
            first = image * captions_per_image
            for text in hypotheses[first : first + captions_per_image]:
                vector = self._vector(text)
                total = sum(_similarity(vector, reference) for reference in truth)
                scores.append(10 * total / ORDERS / len(truth))
        return np.array(scores)

    def _vector(self, text: str) -> _Vector:
        counts = ngrams(text)
        weights = []
        norms = []
        for of_order in counts:
            weighted = {gram: count * self._rarity(gram) for gram, count in of_order.items()}
            weights.append(weighted)
            norms.append(math.sqrt(sum(weight * weight for weight in weighted.values())))
        return _Vector(weights, norms, length=counts[1].total())

    def _rarity(self, gram: str) -> float:
        images = self._frequency.get(gram, 0)
        return self._log_images - math.log(max(1, images))


def _similarity(hypothesis: _Vector, reference: _Vector) -> float:
    """The sum over n of the clipped cosine, less for captions of different lengths."""
    total = 0.0
    for order in range(ORDERS):
        product = _clipped_product(hypothesis.weights[order], reference.weights[order])
        norm = hypothesis.norms[order] * reference.norms[order]
        total += product / norm if norm else product
    difference = hypothesis.length - reference.length
    return total * math.exp(-(difference**2) / (2 * SIGMA**2))


def _clipped_product(hypothesis: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """The scalar product in which no n-gram of the hypothesis weighs more than in the reference."""
    products = []
    for gram, weight in hypothesis.items():
        other = reference.get(gram)
        if other is not None:
            products.append(min(weight, other) * other)
    return sum(products)


class CiderReward:
    """CIDEr-D of generated token rows, as `CaptionTask` asks for it."""

    def __init__(self, scorer: CiderD, tokenizer: "PreTrainedTokenizerBase"):
        self.scorer = scorer
        self.tokenizer = tokenizer

    def __call__(self, ids: Tensor, references: Sequence[Sequence[str]]) -> np.ndarray:
        """Token ids int64 (B*K, L) and each image's references -> float64 (B*K,)."""
        texts = self.tokenizer.batch_decode(ids.tolist(), skip_special_tokens=True)
        wrapped_references = []
        for of_image in references:
            wrapped_references.append(list(map(wrap, of_image)))
        return self.scorer(list(map(wrap, texts)), wrapped_references)
