"""Fusion scores of image-text pairs at the price of their fused tops: one stem per image and per text.

Images are shared out over the ranks; a rank takes its images one batch after another, and keeps the stems of all texts.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fiber_cli.distributed import collectives
from fiber_cli.distributed.device import to_device
from fiber_cli.model.fusion import ImageStem, TextStem
from fiber_cli.model.pixels import normalize
from fiber_cli.model.precision import arithmetic, precision_context
from fiber_cli.printing import say
from fiber_cli.tasks.abilities import Matching
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.items import ImageSet, TextSet
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.progress import progress_bar
from fiber_cli.tasks.retrieval.journal import Journal, journal_folder
from fiber_cli.tasks.retrieval.stems import TextStems

#: Bytes of text stems that a rank holds in memory; more of them lie in a file.
MEMORY = 4 << 30


class PairScores(NamedTuple):
    """`scores`: float32 (images, texts), NaN for pairs that were not wanted or whose image cannot be read. `bad`:
    (id, reason) of those images; `truncated`: how many texts were cut."""

    scores: np.ndarray
    bad: list[tuple[str, str]]
    truncated: int


class Sums(NamedTuple):
    """Scores (images, texts) of dual encoder and fusion together: `logits`, the cosine divided by the dual encoder's
    temperature plus the matched logit; `raw`, the cosine plus the matched logit."""

    logits: np.ndarray
    raw: np.ndarray


def sums(cosines: np.ndarray, matched: np.ndarray, logit_scale: float) -> Sums:
    """Of scores of equal shape; logit_scale: 1 / temperature."""
    return Sums(cosines * logit_scale + matched, cosines + matched)


@dataclass(frozen=True)
class Storage:
    """folder: where finished scores are kept until all are there, for a run that is killed and started again with the
    same `fingerprint` of the weights; None keeps none. memory: bytes, see `MEMORY`."""

    folder: Path | None = None
    fingerprint: str = ""
    memory: int = MEMORY


class TextChunk(NamedTuple):
    """Some of the texts of an image, which is a row of a batch of images."""

    row: int
    texts: np.ndarray


def match_scores(task: Matching, image: ImageStem, text: TextStem) -> Tensor:
    """The "matched" logit, float32 (pairs,): of each pair, or of K texts for each image, side by side."""
    return task.match(image, text, pooled=True)[:, 1].float()


class PairPass:
    """The pass over the pairs of this rank. first: the number of its first image; scores: float32 (images, texts), NaN
    where a pair has none yet."""

    def __init__(
        self,
        task: Matching,
        images: ImageSet,
        texts: TextSet,
        options: PredictOptions,
        storage: Storage,
        *,
        shows_progress: bool,
    ):
        self.task, self.images, self.texts = task, images, texts
        self.shows_progress = shows_progress
        self.options, self.storage = options, storage
        self.device = next(task.encoder.parameters()).device
        rank, world = collectives.rank(), collectives.world_size()
        self.first = len(images) * rank // world
        self.end = len(images) * (rank + 1) // world
        self.scores = np.full((self.end - self.first, len(texts)), np.nan, dtype=np.float32)
        self.journal = self._open_journal()
        self.bad: list[tuple[str, str]] = []
        self.truncated = 0

    def _open_journal(self) -> Journal | None:
        """What was scored before, put into `scores`."""
        if self.storage.folder is None:
            return None
        named = [
            self.storage.fingerprint,
            arithmetic(self.options.precision),
            self.images.ids,
            self.texts.texts,
            self.texts.text_length,
        ]
        key = hashlib.blake2b(repr(named).encode(errors="surrogatepass"), digest_size=16).hexdigest()
        journal = Journal(journal_folder(self.storage.folder), key)
        journal.read(self.first, self.scores)
        return journal

    def missing(self, wanted: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The texts that each image of this rank still has to be scored with."""
        local = wanted[self.first : self.end]
        missing = []
        for row, texts in enumerate(local):
            unscored = np.isnan(self.scores[row, texts])
            missing.append(texts[unscored])
        before = sum(map(len, local)) - sum(map(len, missing))
        before = sum(collectives.gather_objects(before))
        if before and collectives.is_main():
            say(f"{before} pairs were scored before the run was stopped")
        return missing

    def score(self, wanted: Sequence[np.ndarray]) -> None:
        """Fill `scores`, but for the images that cannot be read."""
        missing = self.missing(wanted)
        with precision_context(self.options.precision, self.device):
            stems = self._text_stems()
            with progress_bar(sum(map(len, missing)), "pairs", hidden=not self.shows_progress) as progress:
                for batch in self._loader(self.images, collectives.rank(), collectives.world_size()):
                    self.bad.extend(batch["bad"])
                    if len(batch["index"]):
                        self._score_images(batch, missing, stems, progress)

    def _loader(self, items: ImageSet | TextSet, rank: int, world: int) -> Iterable[dict[str, Any]]:
        return items.loader(rank=rank, world=world, batch_size=self.options.batch_size, workers=self.options.workers)

    def _text_stems(self) -> TextStems:
        """Of all texts, on every rank."""
        folder = None
        if self.journal is not None:
            folder = self.journal.folder
        width = self.task.encoder.config.text.hidden
        stems = TextStems(len(self.texts), self.texts.text_length, width, memory=self.storage.memory, folder=folder)
        for batch in self._loader(self.texts, 0, 1):
            self.truncated += batch["truncated"]
            numbers = batch["index"].tolist()
            batch = to_device(batch, self.device)
            stems.put(numbers, self.task.encoder.text_stem(batch["ids"], batch["mask"]))
        return stems

    def _score_images(
        self, batch: dict[str, Any], missing: list[np.ndarray], stems: TextStems, progress: "tqdm[Any]"
    ) -> None:
        maps = self.task.encoder.image_stem(normalize(batch["pixels"].to(self.device))).map
        numbers = batch["index"].tolist()
        texts = [_by_length(missing[number - self.first], stems) for number in numbers]
        for group in grouped(texts, self.options.batch_size):
            text = stems.get(np.concatenate([chunk.texts for chunk in group]), self.device)
            image = ImageStem(maps[image_rows(group)])
            scores = match_scores(self.task, image, text).cpu()
            sizes = [len(chunk.texts) for chunk in group]
            for chunk, of_chunk in zip(group, scores.split(sizes), strict=True):
                self._keep(numbers[chunk.row], chunk.texts, of_chunk.numpy())
            progress.update(len(scores))

    def _keep(self, image: int, texts: np.ndarray, scores: np.ndarray) -> None:
        self.scores[image - self.first, texts] = scores
        if self.journal is not None:
            self.journal.append(image, texts, scores)

    def gather(self, *, on_main: bool) -> PairScores:
        """The scores of all ranks, see `score_pairs`; the journal goes."""
        shares = collectives.gather_on_main(self.scores) if on_main else collectives.gather_objects(self.scores)
        bad = [pair for of_rank in collectives.gather_objects(self.bad) for pair in of_rank]
        if self.journal is not None:
            self.journal.remove()
        scores = np.concatenate(shares) if shares else self.scores[:0]
        return PairScores(scores, bad, self.truncated)


@torch.no_grad()
def score_pairs(
    task: Matching,
    images: ImageSet,
    texts: TextSet,
    wanted: Sequence[np.ndarray],
    options: PredictOptions,
    storage: Storage = Storage(),
    *,
    shows_progress: bool = True,
    on_main: bool = False,
) -> PairScores:
    """Fusion scores of each image with the texts `wanted` for it (int numbers), the same on all ranks; on_main: the
    first rank alone has them, the others those of no image."""
    assert isinstance(task, Task)
    was_training = task.training
    task.eval()
    scorer = PairPass(task, images, texts, options, storage, shows_progress=shows_progress)
    scorer.score(wanted)
    task.train(was_training)
    return scorer.gather(on_main=on_main)


def best_columns(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k best of each row, int64 (rows, min(k, columns)), best first, earlier columns first among
    equals."""
    if not len(scores):
        return np.zeros((0, min(k, scores.shape[1])), dtype=np.int64)
    return np.stack([_best(row, k) for row in scores])


def _best(row: np.ndarray, k: int) -> np.ndarray:
    """Numbers of the k best of a row, int64, in the order of `best_columns`; only these are sorted."""
    if not 0 < k < len(row):
        return np.argsort(-row, kind="stable")[:k]
    least = row[np.argpartition(-row, k - 1)[:k]].min()
    if np.isnan(least):  # no k of them are numbers; NaN comes last
        return np.argsort(-row, kind="stable")[:k]
    candidates = np.flatnonzero(row >= least)  # more than k where some are equal to the last
    return candidates[np.argsort(-row[candidates], kind="stable")[:k]]


def _by_length(texts: np.ndarray, stems: TextStems) -> np.ndarray:
    """The texts in the order of their lengths: of equal length, they need little padding."""
    return texts[np.argsort(stems.lengths[texts], kind="stable")]


def grouped(texts: Iterable[np.ndarray], size: int) -> Iterator[list[TextChunk]]:
    """Batches of at most `size` pairs, in order, from the texts of each image: of one image where it has enough."""
    group: list[TextChunk] = []
    pairs = 0
    for row, of_image in enumerate(texts):
        for start in range(0, len(of_image), size):
            chunk = of_image[start : start + size]
            if pairs + len(chunk) > size:
                yield group
                group, pairs = [], 0
            group.append(TextChunk(row, chunk))
            pairs += len(chunk)
    if group:
        yield group


def image_rows(group: Sequence[TextChunk]) -> list[int]:
    """Each image once where all have as many texts, which then share its first fused block; else once a pair."""
    counts = {len(chunk.texts) for chunk in group}
    rows: list[int] = []
    for chunk in group:
        repeats = 1 if len(counts) == 1 else len(chunk.texts)
        rows.extend([chunk.row] * repeats)
    return rows
