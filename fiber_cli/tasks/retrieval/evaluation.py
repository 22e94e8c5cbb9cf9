"""Image-text retrieval by the dual encoder, by fusion, by their sum, and by fusion over the dual encoder's best (paper
Tables 3 and 4), in one process or many.

The sum is of logits: a bare cosine, which the paper's words may mean as well, would be drowned by the matched logit,
which has no bounds.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fiber_cli.data.source import CaptionSource, Source, require, sample_id, some_captions, usable
from fiber_cli.distributed import collectives
from fiber_cli.distributed.device import GIB
from fiber_cli.errors import UserError
from fiber_cli.tasks.abilities import Embedding, Matching
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.coarse.settings import PairSettings
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evaluation import Checked, Evaluation, Result, refuse_detection_options, scored_on_main
from fiber_cli.tasks.evaluation_options import EvaluationOptions, PairScorer
from fiber_cli.tasks.items import ImageSet, TextSet
from fiber_cli.tasks.prediction import PredictOptions, predict_on_main
from fiber_cli.tasks.retrieval.journal import check_journal, journal_folder
from fiber_cli.tasks.retrieval.metrics import chance_notes, recalls
from fiber_cli.tasks.retrieval.pairs import Storage, best_columns, score_pairs, sums
from fiber_cli.tasks.retrieval.presence import presence_metrics, presence_sets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: How many of the best candidates of a query are listed in rankings.json.
LISTED = 10
RANKINGS = "rankings.json"
#: Ends the name of a sum with the cosine as it is.
RAW = "-raw"


class RetrievalSet:
    """All images of the sources with all their captions, as an `ImageSet` and a `TextSet`.

    text_image: int64 (texts,), the image of each text. Images without a readable caption are in neither and listed in
    `left_out` as (id, reason).
    """

    def __init__(
        self,
        sources: Sequence[CaptionSource],
        tokenizer: "PreTrainedTokenizerBase",
        text_length: int,
        image_size: int | tuple[int, int],
    ):
        samples: list[tuple[CaptionSource, int]] = []
        for source in sources:
            samples.extend((source, i) for i in range(len(source)))
        images, captions, self.left_out = usable(samples, _captions, _name)
        self.images = ImageSet(images, image_size)
        self.texts = TextSet(list(chain.from_iterable(captions)), tokenizer, text_length)
        self.text_image = np.repeat(np.arange(len(captions)), list(map(len, captions)))

    def check(self) -> None:
        """Raises UserError where there is no image with a caption, or none can be read."""
        if not len(self.texts):
            such = f", such as {': '.join(self.left_out[0])}" if self.left_out else ""
            raise UserError(f"retrieval: no image with a text could be read{such}; check the data set's paths")
        self.images.check()


def _captions(sample: tuple[CaptionSource, int]) -> tuple[str, ...]:
    source, i = sample
    return some_captions(source, i)


def _name(sample: tuple[CaptionSource, int]) -> str:
    return sample_id(*sample)


class Rankings(NamedTuple):
    """Scores (images, texts) by which a text ranks images, and by which an image ranks texts."""

    by_text: np.ndarray
    by_image: np.ndarray

    def select(self, images: np.ndarray, texts: np.ndarray) -> "Rankings":
        """Those among some images and texts."""
        pairs = np.ix_(images, texts)
        return Rankings(self.by_text[pairs], self.by_image[pairs])


class Similarities(NamedTuple):
    """cosines: float32 (images, texts), -inf where the image, or the text's own image, cannot be read. logit_scale:
    1 / the temperature of the model that they are of."""

    cosines: np.ndarray
    logit_scale: float


class Candidates(NamedTuple):
    """The dual encoder's best: of each image its texts (images, K), of each text its images (texts, K)."""

    texts: np.ndarray
    images: np.ndarray


def trained_mode(settings: PairSettings) -> str:
    """ITC where the task has it, else ITM over all pairs."""
    return "itc" if settings.itc else "itm"


def evaluation(
    sources: Sequence[Source], context: TaskContext[PairSettings], options: EvaluationOptions
) -> "RetrievalEvaluation":
    """All images of the sources with all their captions."""
    return RetrievalEvaluation(require(sources, CaptionSource, "evaluation"), context, options)


class RetrievalEvaluation(Evaluation):
    """Retrieval both ways: metrics "itc/ir@1" …, in percent; as counts the images and the texts they are from; as file
    rankings.json, the best candidates of every query.

    The mode is "itc" (dual encoder), "itm" (fusion over all pairs), "itc+itm" (their sum; gives all three) or "rerank":
    for each k of `rerank`, the sum over a query's k best by the dual encoder, all others counting as not retrieved. All
    k come from one pass, in which a pair that both directions want is scored once. A sum is of logits; beside it, as
    "itc+itm-raw/ir@1" or "rerank-50-raw/ir@1", stands that with the bare cosine, see `Sums`. Images that cannot be read
    are left out with their texts. With `calibrate` the metrics of `presence_metrics` come with them. Raises UserError
    for a mode that the checkpoints cannot have.
    """

    def __init__(
        self, sources: Sequence[CaptionSource], context: TaskContext[PairSettings], options: EvaluationOptions
    ):
        settings = context.settings
        if options.blind:
            raise UserError("--blind: in retrieval chance is known, 1 / candidates; it is for other tasks")
        refuse_detection_options(options, settings.name)
        if options.scorer is not None and (options.mode == "itc" or not _scores_pairs(options.scorer)):
            raise UserError("--itm-checkpoint scores pairs: it is for retrieval with fusion, by a retrieval checkpoint")
        default = trained_mode(settings) if options.scorer is None else "itc+itm"
        self.mode = options.mode or default
        self.rerank, self.scorer = options.rerank, options.scorer
        self.storage = Storage(options.folder, options.fingerprint, int(options.stem_memory * GIB))
        self.evalset = _retrieval_set(sources, context)
        self.presence = presence_sets(sources, context) if options.calibrate else []
        # The same images and texts, maybe at other sizes.
        self.pairs = self.evalset if self.scorer is None else _retrieval_set(sources, self.scorer.context)

    def check(self) -> Checked:
        """Recall needs no more of the data than images and texts."""
        self.evalset.check()
        if self.storage.folder is not None:
            check_journal(journal_folder(self.storage.folder))
        return Checked([], files=(RANKINGS,))

    def measure(self, task: Task, options: PredictOptions) -> Result:
        scorer = task if self.scorer is None else self.scorer.task
        reading = Reading(list(self.evalset.left_out))
        if self.mode == "itm":
            rankings = self.fused(scorer, options, reading)
        else:
            itc = self.similarities(task, options, reading)
            rankings = {"itc": Rankings(itc.cosines, itc.cosines)}
            if self.mode == "rerank":
                rankings |= self.reranked(scorer, itc, options, reading)
            elif self.mode == "itc+itm":
                rankings |= self.ensemble(scorer, itc, options, reading)
            if self.mode != "itc":
                reading.notes.append(_scale_note(itc.logit_scale))
        result = scored_on_main(lambda: _result(self.evalset, rankings, self.listed, reading))
        return replace(result, metrics=result.metrics | presence_metrics(task, self.presence, options))

    @property
    def listed(self) -> str:
        """The name of the ranking whose best candidates are written out."""
        if self.mode == "rerank":
            return f"rerank-{self.rerank[-1]}"
        return self.mode

    def similarities(self, task: Task, options: PredictOptions, reading: "Reading") -> Similarities:
        """Of the dual encoder, of no images on other ranks than the first. Raises UserError for a checkpoint that has
        none."""
        if not isinstance(task, Embedding) or Embedding in task.switched_off:
            raise UserError(
                f"mode {self.mode} needs a checkpoint trained with ITC (task.itc > 0), which this one is not"
            )
        images = predict_on_main(task, self.evalset.images, options, what="images")
        texts = predict_on_main(task, self.evalset.texts, options, what="texts")
        reading.add(images.bad, texts.truncated)
        if not collectives.is_main():
            return Similarities(np.zeros((0, 0), np.float32), task.logit_scale())
        scores = np.full((len(self.evalset.images), len(self.evalset.texts)), -np.inf, dtype=np.float32)
        rows = np.array(sorted(images.rows), dtype=np.int64)
        columns = np.flatnonzero(np.isin(self.evalset.text_image, rows))
        if len(rows):
            image_features = np.stack([images.rows[row] for row in rows.tolist()])
            text_features = np.stack([texts.rows[column] for column in columns.tolist()])
            scores[np.ix_(rows, columns)] = image_features @ text_features.T
        return Similarities(scores, task.logit_scale())

    def fused(self, scorer: Task, options: PredictOptions, reading: "Reading") -> dict[str, Rankings]:
        """Fusion over all pairs."""
        all_texts = np.arange(len(self.pairs.texts))
        itm = self.pair_scores(scorer, [all_texts] * len(self.pairs.images), options, reading)
        return {"itm": Rankings(itm, itm)}

    def ensemble(
        self, scorer: Task, itc: Similarities, options: PredictOptions, reading: "Reading"
    ) -> dict[str, Rankings]:
        """Fusion over all pairs, and its sums with the dual encoder's similarities."""
        rankings = self.fused(scorer, options, reading)
        if not collectives.is_main():
            return {}
        logits, raw = sums(itc.cosines, rankings["itm"].by_text, itc.logit_scale)
        rankings[self.mode] = Rankings(logits, logits)
        rankings[self.mode + RAW] = Rankings(raw, raw)
        return rankings

    def reranked(
        self, scorer: Task, itc: Similarities, options: PredictOptions, reading: "Reading"
    ) -> dict[str, Rankings]:
        """Fusion over the dual encoder's best, for each k."""
        k = max(self.rerank)
        cosines = itc.cosines
        candidates = Candidates(best_columns(cosines, k), best_columns(cosines.T, k))
        wanted = collectives.from_main(lambda: _wanted(candidates, cosines))
        itm = self.pair_scores(scorer, wanted, options, reading)
        if not collectives.is_main():
            return {}
        logits, raw = sums(cosines, itm, itc.logit_scale)
        rankings = {f"rerank-{k}": _best_alone(logits, candidates, k) for k in self.rerank}
        for k in self.rerank:
            rankings[f"rerank-{k}{RAW}"] = _best_alone(raw, candidates, k)
        return rankings

    def pair_scores(
        self, scorer: Task, wanted: list[np.ndarray], options: PredictOptions, reading: "Reading"
    ) -> np.ndarray:
        """The scores of `score_pairs` on the first rank, (images, texts). Raises UserError for a checkpoint that cannot
        match."""
        if not isinstance(scorer, Matching) or Matching in scorer.switched_off:
            raise UserError(
                "fusion needs an ITM head (task.itm > 0), which this checkpoint lacks: name one with --itm-checkpoint"
            )
        pairs = score_pairs(scorer, self.pairs.images, self.pairs.texts, wanted, options, self.storage, on_main=True)
        reading.add(pairs.bad, pairs.truncated)
        return pairs.scores


class Reading:
    """What could not be read, each once, how many texts were cut in the last pass over them, and lines for the
    reader."""

    def __init__(self, bad: list[tuple[str, str]]):
        self.bad, self.truncated = bad, 0
        self.notes: list[str] = []

    def add(self, bad: list[tuple[str, str]], truncated: int) -> None:
        self.bad = list(dict.fromkeys([*self.bad, *bad]))
        self.truncated = truncated


def _scale_note(logit_scale: float) -> str:
    return (
        f"sums of ITC and ITM are of logits: cosine / {1 / logit_scale:.4g}, the temperature of the ITC checkpoint, "
        f"plus matched logit; with {RAW} in the name: cosine plus matched logit"
    )


def _scores_pairs(scorer: PairScorer) -> bool:
    return isinstance(scorer.context.settings, PairSettings)


def _retrieval_set(sources: Sequence[CaptionSource], context: TaskContext[Any]) -> RetrievalSet:
    return RetrievalSet(sources, context.tokenizer, context.text_length, context.model.image_size)


def _wanted(candidates: Candidates, itc: np.ndarray) -> list[np.ndarray]:
    """The texts that each image is scored with: its own candidates and those that it is a candidate of."""
    chosen = np.zeros(itc.shape, dtype=bool)
    np.put_along_axis(chosen, candidates.texts, True, 1)
    np.put_along_axis(chosen, candidates.images.T, True, 0)
    chosen &= itc > -np.inf
    return [np.flatnonzero(row) for row in chosen]


def _best_alone(total: np.ndarray, candidates: Candidates, k: int) -> Rankings:
    """The scores of each text's k best candidate images and of each image's k best texts, all others -inf."""
    by_text, by_image = np.full((2, *total.shape), -np.inf, dtype=np.float32)
    images = candidates.images[:, :k].T
    np.put_along_axis(by_text, images, np.take_along_axis(total, images, 0), 0)
    texts = candidates.texts[:, :k]
    np.put_along_axis(by_image, texts, np.take_along_axis(total, texts, 1), 1)
    return Rankings(by_text, by_image)


def _result(evalset: RetrievalSet, rankings: dict[str, Rankings], listed: str, reading: Reading) -> Result:
    """Metrics of all rankings, and the best candidates by the one of the name `listed`."""
    images = _readable(evalset, reading)
    texts = np.flatnonzero(np.isin(evalset.text_image, images))
    if not len(texts):
        raise UserError("retrieval: no image with a text could be read; check the data set's paths")
    owner = np.searchsorted(images, evalset.text_image[texts])
    metrics: dict[str, float] = {}
    for name, ranking in rankings.items():
        metrics |= _recalls(name, ranking.select(images, texts), owner)
    best = rankings[listed].select(images, texts)
    image_ids = [evalset.images.ids[number] for number in images]
    captions = [evalset.texts.texts[number] for number in texts]
    best_candidates = {
        "scores": listed,
        "image_retrieval": _best_images(best.by_text, captions, image_ids, owner),
        "text_retrieval": _best_texts(best.by_image, captions, image_ids),
    }
    notes = [*reading.notes, *chance_notes(owner)]
    return Result(
        metrics,
        samples=len(images),
        counts={"images": len(images), "texts": len(texts)},
        bad=reading.bad,
        truncated=reading.truncated,
        files={RANKINGS: best_candidates},
        notes=notes,
    )


def _readable(evalset: RetrievalSet, reading: Reading) -> np.ndarray:
    """The numbers of the images that could be read, int64."""
    unreadable = {name for name, _ in reading.bad}
    numbers = [number for number, name in enumerate(evalset.images.ids) if name not in unreadable]
    return np.array(numbers, dtype=np.int64)


def _recalls(name: str, ranking: Rankings, owner: np.ndarray) -> dict[str, float]:
    """Image retrieval by the scores of texts, text retrieval by those of images."""
    of_texts, of_images = recalls(ranking.by_text, owner), recalls(ranking.by_image, owner)
    metrics = {}
    for metric in of_texts:
        direction = of_texts if metric.startswith("ir") else of_images
        metrics[f"{name}/{metric}"] = direction[metric]
    return metrics


def _best_images(
    scores: np.ndarray, captions: list[str], image_ids: list[str], owner: np.ndarray
) -> list[dict[str, Any]]:
    entries = []
    for column, caption in enumerate(captions):
        ranked = _listed(scores[:, column], image_ids)
        entries.append({"text": caption, "image": image_ids[owner[column]], "best": ranked})
    return entries


def _best_texts(scores: np.ndarray, captions: list[str], image_ids: list[str]) -> list[dict[str, Any]]:
    entries = []
    for row, image in enumerate(image_ids):
        entries.append({"image": image, "best": _listed(scores[row], captions)})
    return entries


def _listed(scores: np.ndarray, names: Sequence[str]) -> list[tuple[str, float]]:
    listed = []
    [columns] = best_columns(scores[None], LISTED)
    for column in columns.tolist():
        score = float(scores[column])
        if score > -np.inf:
            listed.append((names[column], round(score, 5)))
    return listed
