"""Whether a picture shows at all what a text says, and the least score that tells it best.

Recall ranks pictures; a user who searches for what no picture shows gets a ranking all the same. So validation chooses,
for the matched logit and for the sum that searches rank by, the least score of a text that is true of its picture.
Scores of short queries and of whole captions differ, so it is chosen by what people search with, where the data know
which pictures that is true of (`QuerySource`), else by captions; and it holds for texts of their lengths alone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fiber_cli.data.source import CaptionSource, ImageSource, QuerySource, sample_id, some_captions, usable
from fiber_cli.data.words import words_of
from fiber_cli.distributed import collectives
from fiber_cli.tasks.abilities import Embedding, Matching
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.items import ImageSet, TextSet
from fiber_cli.tasks.prediction import PredictOptions, predict_all
from fiber_cli.tasks.retrieval.pairs import best_columns, score_pairs

if TYPE_CHECKING:
    from fiber_cli.tasks.context import TaskContext

#: Most texts that are looked at, each with its own picture and its hardest others, which bounds what it costs.
TEXTS = 128
#: The other pictures of a text that are scored: the dual encoder's best, or any without one.
OTHERS = 3
#: Fewer texts tell nothing.
FEWEST = 8


class PresenceSet(NamedTuple):
    """Texts, each of one of the pictures. is_true: bool (texts, images), also of pictures that a text is true of beside
    its own, the diagonal."""

    images: ImageSet
    texts: TextSet
    is_true: np.ndarray


class Scores(NamedTuple):
    """Of texts, each the best score that the picture has that it is true of (true, (N,)), and the best of a picture
    that it is not true of (false, (N,))."""

    true: np.ndarray
    false: np.ndarray


def presence_set(sources: Sequence[CaptionSource], context: "TaskContext[Any]") -> PresenceSet | None:
    """Texts and pictures of the sources, spread over the first that has queries, else over all; None where there are
    too few."""
    searched = [source for source in sources if isinstance(source, QuerySource)]
    if searched:
        numbers = _spread(len(searched[0]))
        images: list[tuple[ImageSource, int]] = [(searched[0], i) for i in numbers]
        texts, is_true = searched[0].queries_of(numbers)
    else:
        samples: list[tuple[CaptionSource, int]] = []
        for source in sources:
            samples.extend((source, i) for i in range(len(source)))
        chosen = [samples[number] for number in _spread(len(samples))]
        kept, captions, _ = usable(chosen, _captions, _name)
        images = list(kept)
        texts = [of_image[number % len(of_image)] for number, of_image in enumerate(captions)]
        is_true = _captions_that_are_true(images, captions, texts)
    if len(texts) < FEWEST:
        return None
    text_set = TextSet(texts, context.tokenizer, context.text_length)
    return PresenceSet(ImageSet(images, context.model.image_size), text_set, is_true)


def _spread(count: int) -> list[int]:
    """TEXTS numbers below `count`, or all."""
    return np.unique(np.linspace(0, count - 1, min(TEXTS, count)).round().astype(int)).tolist() if count else []


def _captions(sample: tuple[CaptionSource, int]) -> tuple[str, ...]:
    source, i = sample
    return some_captions(source, i)


def _name(sample: tuple[CaptionSource, int]) -> str:
    return sample_id(*sample)


def _captions_that_are_true(
    images: Sequence[tuple[ImageSource, int]], captions: Sequence[tuple[str, ...]], texts: Sequence[str]
) -> np.ndarray:
    """A caption is taken to be true of its picture, wherever that comes, and of those that have the same caption."""
    ids = [sample_id(*image) for image in images]
    is_true = np.zeros((len(texts), len(images)), bool)
    for row, text in enumerate(texts):
        for column, of_image in enumerate(captions):
            is_true[row, column] = ids[column] == ids[row] or text in of_image
    return is_true


def presence_metrics(task: Task, evalset: PresenceSet, options: PredictOptions) -> dict[str, float]:
    """`match/threshold` of the matched logit, `search/threshold` of the sum of logits that searches rank by, of the
    dual encoder's alone without fusion, each with the percentage of true texts that reach it, `match/present@best`, and
    of false ones, `match/absent@best`; `search/fewest_words` and `most_words`, the lengths of the texts. Nothing where
    too few pictures can be read. A collective; the same on all ranks."""
    shape = evalset.is_true.shape
    logits = np.zeros(shape, np.float32)
    is_readable = np.ones(shape[1], bool)
    has_itc = isinstance(task, Embedding) and Embedding not in task.switched_off
    if has_itc:
        logits, is_readable = _itc_logits(task, evalset, options)
    others = collectives.from_main(lambda: _others(logits, evalset.is_true, is_readable, drawn=not has_itc))
    scores = {}
    if isinstance(task, Matching) and Matching not in task.switched_off:
        is_wanted = others | np.eye(*shape, dtype=np.bool_)
        wanted = [np.flatnonzero(column & is_readable[image]) for image, column in enumerate(is_wanted.T)]
        pairs = score_pairs(task, evalset.images, evalset.texts, wanted, options, shows_progress=False)
        scores["match"] = pairs.scores.T
        logits = logits + pairs.scores.T
    if has_itc:
        scores["search"] = logits
    metrics: dict[str, float] = {}
    for name, of_pairs in scores.items():
        told = told_apart(of_pairs, others)
        if len(told.true) >= FEWEST:
            least = best_least(told)
            metrics[f"{name}/threshold"] = least
            metrics[f"{name}/present@best"] = 100 * float((told.true >= least).mean())
            metrics[f"{name}/absent@best"] = 100 * float((told.false >= least).mean())
    if metrics:
        lengths = [len(words_of(text)) for text in evalset.texts.texts]
        metrics |= {"search/fewest_words": min(lengths), "search/most_words": max(lengths)}
    return metrics


def _itc_logits(task: Task, evalset: PresenceSet, options: PredictOptions) -> tuple[np.ndarray, np.ndarray]:
    """The dual encoder's logits, float32 (texts, images), and bool (images,): which could be read."""
    assert isinstance(task, Embedding)
    images = predict_all(task, evalset.images, options, what="images").rows
    texts = predict_all(task, evalset.texts, options, what="texts").rows
    is_readable = np.isin(np.arange(len(evalset.images)), list(images))
    nothing = np.zeros_like(texts[0])
    image_features = np.stack([images.get(number, nothing) for number in range(len(evalset.images))])
    text_features = np.stack([texts[number] for number in range(len(evalset.texts))])
    logits = text_features @ image_features.T * task.logit_scale()
    logits[:, ~is_readable] = np.nan
    return logits, is_readable


def _others(logits: np.ndarray, is_true: np.ndarray, is_readable: np.ndarray, *, drawn: bool) -> np.ndarray:
    """bool (texts, images): of each text the OTHERS best of the pictures that it is not true of; drawn: any of them."""
    ranked = np.random.default_rng(0).random(logits.shape) if drawn else logits
    candidates = np.where(~is_true & is_readable, ranked, -np.inf)
    others = np.zeros(logits.shape, bool)
    np.put_along_axis(others, best_columns(candidates, OTHERS), True, 1)
    return others & (candidates > -np.inf)


def told_apart(scores: np.ndarray, others: np.ndarray) -> Scores:
    """Of scores (texts, images), NaN where there is none, those of the texts that have both a picture of their own, on
    the diagonal, and another one of `others`."""
    true = np.diagonal(scores)
    false = np.where(others & ~np.isnan(scores), scores, -np.inf).max(1)
    is_whole = ~np.isnan(true) & (false > -np.inf)
    return Scores(true[is_whole], false[is_whole])


def best_least(scores: Scores) -> float:
    """The least score with the best F1 over as many true texts as false ones. Where scores tell nothing F1 is best
    where all are taken for true, so that a checkpoint that cannot tell denies nothing; at equal errors it would deny
    half."""
    values = np.unique(np.concatenate(scores))
    middles = (values[:-1] + values[1:]) / 2
    least = np.concatenate([values[:1], middles])
    present = np.array([(scores.true >= each).mean() for each in least])
    absent = np.array([(scores.false >= each).mean() for each in least])
    f1 = 2 * present / (present + absent + 1)
    # Of equally good ones the middle: the farthest from where it would change.
    best = np.flatnonzero(f1 == f1.max())
    return round(float(least[best[len(best) // 2]]), 3)
