"""Whether any picture of a folder shows what a text says, and the least score that tells it best.

Recall ranks pictures; a user who searches for what no picture shows gets a ranking all the same. So validation draws
for each text a folder that holds its picture and one of pictures that it is not true of, scores both as a search does,
and chooses the least score of a folder that shows it, for the matched logit and for the sum that searches rank by.
Scores of short queries and of whole captions differ, so there is a threshold for each: for queries where the data know
which pictures they are true of (`QuerySource`). Both hold for texts of their lengths alone.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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

#: Most texts that are looked at, which bounds what it costs.
TEXTS = 128
#: Pictures of a folder that is searched; in larger ones more is taken to be there.
FOLDER = 20
#: Pictures of a folder that fusion scores: the dual encoder's best, or any without one.
RERANKED = 3
#: Fewer texts tell nothing.
FEWEST = 8
#: By how many points more of the true texts than of the false ones must reach a threshold that is worth having.
TOLD_APART = 25.0


class PresenceSet(NamedTuple):
    """Texts, each of one of the pictures. of: what the texts are; is_true: bool (texts, images), also of pictures that
    a text is true of beside its own, the diagonal."""

    of: Literal["queries", "captions"]
    images: ImageSet
    texts: TextSet
    is_true: np.ndarray


class Folders(NamedTuple):
    """Of each text the pictures of two drawn folders that fusion scores, bool (texts, images). present: of one that
    holds the text's own picture, that and the best of the others; absent: of one that holds none that it is true of."""

    present: np.ndarray
    absent: np.ndarray


class Scores(NamedTuple):
    """Of texts, each the best score of a folder that shows what it says (present, (N,)), and of one that does not
    (absent, (N,))."""

    present: np.ndarray
    absent: np.ndarray


def presence_sets(sources: Sequence[CaptionSource], context: "TaskContext[Any]") -> list[PresenceSet]:
    """Of the first source that has queries, and of the captions of all, as far as there are enough texts."""
    sets = []
    for source in sources:
        if isinstance(source, QuerySource):
            numbers = _spread(len(source))
            texts, is_true = source.queries_of(numbers)
            sets.append(_presence_set("queries", [(source, i) for i in numbers], texts, is_true, context))
            break
    samples: list[tuple[CaptionSource, int]] = []
    for source in sources:
        samples.extend((source, i) for i in range(len(source)))
    chosen = [samples[number] for number in _spread(len(samples))]
    images, captions, _ = usable(chosen, _captions, _name)
    texts = [of_image[number % len(of_image)] for number, of_image in enumerate(captions)]
    is_true = _captions_that_are_true(images, captions, texts)
    sets.append(_presence_set("captions", images, texts, is_true, context))
    return [each for each in sets if len(each.texts) >= FEWEST]


def _presence_set(
    of: Literal["queries", "captions"],
    images: Sequence[tuple[ImageSource, int]],
    texts: Sequence[str],
    is_true: np.ndarray,
    context: "TaskContext[Any]",
) -> PresenceSet:
    text_set = TextSet(texts, context.tokenizer, context.text_length)
    return PresenceSet(of, ImageSet(images, context.model.image_size), text_set, is_true)


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
    """Of captions `search/present@best` and `search/absent@best`, the percentages of folders that show what a text says
    and of those that do not whose best score reaches the best threshold of the sum of logits that searches rank by, of
    the dual encoder's alone without fusion, and `match/…` of the matched logit. Where these are told apart,
    `search/threshold`, `match/threshold`, and `search/fewest_words` and `most_words`, the lengths of the texts. Of
    queries the same as `search/queries/…` and `match/queries/…`. Nothing where too few pictures can be read. A
    collective; the same on all ranks."""
    # So few pictures are read before a worker process has begun.
    options = replace(options, workers=0)
    metrics: dict[str, float] = {}
    for evalset in sets:
        metrics |= _metrics_of(task, evalset, options)
    return metrics


def _metrics_of(task: Task, evalset: PresenceSet, options: PredictOptions) -> dict[str, float]:
    kind = "" if evalset.of == "captions" else f"{evalset.of}/"
    metrics: dict[str, float] = {}
    for name, scores in _scores(task, evalset, options).items():
        metrics |= _measured(f"{name}/{kind}", scores)
    if any(name.endswith("/threshold") for name in metrics):
        lengths = [len(words_of(text)) for text in evalset.texts.texts]
        metrics |= {f"search/{kind}fewest_words": min(lengths), f"search/{kind}most_words": max(lengths)}
    return metrics


def _scores(task: Task, evalset: PresenceSet, options: PredictOptions) -> dict[str, Scores]:
    """Of the matched logit ("match") and of what searches rank by ("search"), as far as the task has them."""
    shape = evalset.is_true.shape
    logits = np.zeros(shape, np.float32)
    is_readable = np.ones(shape[1], bool)
    has_itc = isinstance(task, Embedding) and Embedding not in task.switched_off
    if has_itc:
        logits, is_readable = _itc_logits(task, evalset, options)
    folders = collectives.from_main(lambda: drawn_folders(logits, evalset.is_true, is_readable, has_itc=has_itc))
    scores = {}
    if isinstance(task, Matching) and Matching not in task.switched_off:
        is_wanted = folders.present | folders.absent
        wanted = [np.flatnonzero(of_image) for of_image in is_wanted.T]
        pairs = score_pairs(task, evalset.images, evalset.texts, wanted, options, shows_progress=False)
        matched = pairs.scores.T
        scores["match"] = best_of_folders(matched, folders)
        logits = logits + matched
    if has_itc:
        scores["search"] = best_of_folders(logits, folders)
    return scores


def _measured(prefix: str, scores: Scores) -> dict[str, float]:
    """The metrics of one kind of score."""
    if len(scores.present) < FEWEST:
        return {}
    least = best_least(scores)
    present = 100 * float((scores.present >= least).mean())
    absent = 100 * float((scores.absent >= least).mean())
    metrics = {f"{prefix}present@best": present, f"{prefix}absent@best": absent}
    # Where it tells nothing, every folder would be said to show everything.
    if present - absent >= TOLD_APART:
        metrics[f"{prefix}threshold"] = least
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


def drawn_folders(logits: np.ndarray, is_true: np.ndarray, is_readable: np.ndarray, *, has_itc: bool) -> Folders:
    """Two folders a text, drawn from the pictures that can be read; both have as many pictures in common as they can,
    so that fewer pairs are scored. logits: the dual encoder's, (texts, images)."""
    order = np.random.default_rng(0).random(logits.shape)
    ranks = logits if has_itc else order
    # A text whose own picture cannot be read has no folder that is known to show what it says.
    own = np.eye(*logits.shape, dtype=np.bool_) & is_readable
    beside_own = _best(order, is_readable & ~np.eye(*logits.shape, dtype=np.bool_), FOLDER - 1)
    without = _best(order, is_readable & ~is_true, FOLDER)
    return Folders(own | _best(ranks, beside_own, RERANKED - 1), _best(ranks, without, RERANKED))


def _best(ranks: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """bool (texts, images): of each text the `count` pictures of `among` that rank highest, or all."""
    candidates = np.where(among, ranks, -np.inf)
    chosen = np.zeros(ranks.shape, bool)
    np.put_along_axis(chosen, best_columns(candidates, count), True, 1)
    return chosen & among


def best_of_folders(scores: np.ndarray, folders: Folders) -> Scores:
    """Of scores (texts, images), NaN where there is none, the best of both folders of each text whose own picture, on
    the diagonal, has one, and whose other folder is not empty."""
    present = _highest(scores, folders.present)
    absent = _highest(scores, folders.absent)
    is_whole = ~np.isnan(np.diagonal(scores)) & (absent > -np.inf)
    return Scores(present[is_whole], absent[is_whole])


def _highest(scores: np.ndarray, among: np.ndarray) -> np.ndarray:
    """(texts,): the highest score of each row of `among`, -inf where there is none."""
    highest: np.ndarray = np.where(among & ~np.isnan(scores), scores, -np.inf).max(1)
    return highest


def best_least(scores: Scores) -> float:
    """The least score with the best F1 over as many folders that show what is asked for as such that do not. Where
    scores tell nothing F1 is best where all are taken to show it, so that a checkpoint that cannot tell denies nothing;
    at equal errors it would deny half."""
    values = np.unique(np.concatenate(scores))
    middles = (values[:-1] + values[1:]) / 2
    least = np.concatenate([values[:1], middles])
    present = np.array([(scores.present >= each).mean() for each in least])
    absent = np.array([(scores.absent >= each).mean() for each in least])
    f1 = 2 * present / (present + absent + 1)
    # Of equally good ones the middle: the farthest from where it would change.
    best = np.flatnonzero(f1 == f1.max())
    return round(float(least[best[len(best) // 2]]), 3)
