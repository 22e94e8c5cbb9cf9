"""Whether a picture shows at all what a text says, and the least score that tells it best.

Recall ranks pictures; a user who searches for what no picture shows gets a ranking all the same. So validation chooses,
for the matched logit and for the sum that searches rank by, the least score of a text that is true of its picture.
Scores of short queries and of whole captions differ, so it is chosen by what people search with, where the data know
which pictures that is true of (`QuerySource`) and the checkpoint can tell, else by captions; and it holds for texts of
their lengths alone.
"""

from collections.abc import Sequence
from dataclasses import replace
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
#: By how many points more of the true texts than of the false ones must reach a threshold that is worth having.
TOLD_APART = 25.0


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


def presence_sets(sources: Sequence[CaptionSource], context: "TaskContext[Any]") -> list[PresenceSet]:
    """Of the first source that has queries, and of the captions of all, as far as there are enough texts."""
    sets = []
    for source in sources:
        if isinstance(source, QuerySource):
            numbers = _spread(len(source))
            texts, is_true = source.queries_of(numbers)
            sets.append(_presence_set([(source, i) for i in numbers], texts, is_true, context))
            break
    samples: list[tuple[CaptionSource, int]] = []
    for source in sources:
        samples.extend((source, i) for i in range(len(source)))
    chosen = [samples[number] for number in _spread(len(samples))]
    images, captions, _ = usable(chosen, _captions, _name)
    texts = [of_image[number % len(of_image)] for number, of_image in enumerate(captions)]
    sets.append(_presence_set(images, texts, _captions_that_are_true(images, captions, texts), context))
    return [each for each in sets if len(each.texts) >= FEWEST]


def _presence_set(
    images: Sequence[tuple[ImageSource, int]], texts: Sequence[str], is_true: np.ndarray, context: "TaskContext[Any]"
) -> PresenceSet:
    text_set = TextSet(texts, context.tokenizer, context.text_length)
    return PresenceSet(ImageSet(images, context.model.image_size), text_set, is_true)


def _spread(count: int) -> list[int]:
    """TEXTS numbers below `count`, or all."""
    if count == 0:
        return []
    return np.unique(np.linspace(0, count - 1, min(TEXTS, count)).round().astype(int)).tolist()


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


def presence_metrics(task: Task, sets: Sequence[PresenceSet], options: PredictOptions) -> dict[str, float]:
    """`search/present@best` and `search/absent@best`, the percentages of true texts and of false ones that reach the
    best threshold of the sum of logits that searches rank by, of the dual encoder's alone without fusion, and
    `match/…` of the matched logit. Where these are told apart, `search/threshold`, `match/threshold`, and
    `search/fewest_words` and `most_words`, the lengths of the texts. All of the first set whose texts are told apart,
    else of the last; nothing where too few pictures can be read. A collective; the same on all ranks."""
    # So few pictures are read before a worker process has begun.
    options = replace(options, workers=0)
    metrics: dict[str, float] = {}
    for evalset in sets:
        metrics = {}
        for name, scores in _scores(task, evalset, options).items():
            metrics |= _measured(name, scores)
        if any(name.endswith("/threshold") for name in metrics):
            lengths = [len(words_of(text)) for text in evalset.texts.texts]
            return metrics | {"search/fewest_words": min(lengths), "search/most_words": max(lengths)}
    return metrics


def _scores(task: Task, evalset: PresenceSet, options: PredictOptions) -> dict[str, Scores]:
    """Of the matched logit ("match") and of what searches rank by ("search"), as far as the task has them."""
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
        wanted = [np.flatnonzero(of_image & is_readable[image]) for image, of_image in enumerate(is_wanted.T)]
        pairs = score_pairs(task, evalset.images, evalset.texts, wanted, options, shows_progress=False)
        matched = pairs.scores.T
        scores["match"] = told_apart(matched, others)
        logits = logits + matched
    if has_itc:
        scores["search"] = told_apart(logits, others)
    return scores


def _measured(name: str, scores: Scores) -> dict[str, float]:
    """The metrics of one kind of score."""
    if len(scores.true) < FEWEST:
        return {}
    least = best_least(scores)
    present = 100 * float((scores.true >= least).mean())
    absent = 100 * float((scores.false >= least).mean())
    metrics = {f"{name}/present@best": present, f"{name}/absent@best": absent}
    # Where it tells nothing, every picture would be said to show everything.
    if present - absent >= TOLD_APART:
        metrics[f"{name}/threshold"] = least
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
