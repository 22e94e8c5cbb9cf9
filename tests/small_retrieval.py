"""Small tasks and a few images with texts for the tests of retrieval, and what its numbers are held against."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import torch

from fiber_cli.data.source import BadSample
from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.data.text import load_tokenizer
from fiber_cli.distributed.group import init_from_env
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evaluation import Result
from fiber_cli.tasks.evaluation_options import EvaluationOptions, PairScorer
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.retrieval import pairs
from fiber_cli.tasks.retrieval.evaluation import RetrievalEvaluation, RetrievalSet
from fiber_cli.tasks.retrieval.pairs import PairScores, Storage, score_pairs
from fiber_cli.tasks.retrieval.presence import presence_metrics, presence_sets
from fiber_cli.tasks.retrieval.settings import RetrievalSettings

SMALL = FiberConfig(
    image=ImageConfig(embed_dim=16, depths=(2, 2, 2), heads=(1, 2, 4), window=2, patch=8, drop_path=0.0),
    text=TextConfig(layers=4, hidden=32, heads=4, intermediate=64, vocab=2000, positions=60, dropout=0.0),
    fusion_layers=3,
    hidden=24,
    image_size=(64, 64),
)
IMAGES, LENGTH = 6, 40
OPTIONS = PredictOptions(batch_size=4, workers=0)


class Scenes(ScenesSource):
    """Scenes with three captions for each picture but the second, which has one; numbers in `holes` are unreadable."""

    def __init__(self, holes=()):
        super().__init__("val", IMAGES, image_size=64)
        self.holes = holes

    def image(self, i, at_least=0):
        if i in self.holes:
            raise BadSample("damaged")
        return super().image(i, at_least)

    def captions(self, i):
        count = 1 if i == 1 else 3
        return super().captions(i)[:count]


def make_task(seed=0, config=SMALL, **settings) -> CoarseTask:
    torch.manual_seed(seed)
    task = CoarseTask(config, **settings).eval()
    for name, parameter in task.named_parameters():
        if name.endswith(".alpha"):
            torch.nn.init.constant_(parameter, 0.7)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return task


def make_set(holes=(), image_size=64) -> RetrievalSet:
    return RetrievalSet([Scenes(holes)], load_tokenizer("builtin"), LENGTH, image_size)


def everything(evalset: RetrievalSet) -> list[np.ndarray]:
    """All texts for every image."""
    return [np.arange(len(evalset.texts))] * len(evalset.images)


def score_all(task: CoarseTask, evalset: RetrievalSet, options=OPTIONS, **storage) -> PairScores:
    return score_pairs(task, evalset.images, evalset.texts, everything(evalset), options, Storage(**storage))


@torch.no_grad()
def plain_scores(task: CoarseTask, evalset: RetrievalSet) -> np.ndarray:
    """Every pair on its own, from pixels and padded ids: (images, texts)."""
    scores = np.zeros((len(evalset.images), len(evalset.texts)), dtype=np.float32)
    for i in range(len(evalset.images)):
        for t in range(len(evalset.texts)):
            text = evalset.texts.read(t)
            image = task.encoder.image_stem(normalize(evalset.images.read(i)["pixels"][None]))
            scores[i, t] = task.match(image, task.encoder.text_stem(text["ids"][None], text["mask"][None]))[0, 1]
    return scores


@torch.no_grad()
def cosines(task: CoarseTask, evalset: RetrievalSet) -> np.ndarray:
    """(images, texts), from pixels and padded ids."""
    images = torch.stack([evalset.images.read(i)["pixels"] for i in range(len(evalset.images))])
    texts = [evalset.texts.read(t) for t in range(len(evalset.texts))]
    ids, mask = (torch.stack([text[name] for text in texts]) for name in ("ids", "mask"))
    return (task.predict({"pixels": images}) @ task.predict({"ids": ids, "mask": mask}).T).numpy()


def retrieve(mode, task, scorer=None, *, holes=(), rerank=(), scorer_size=64, **settings) -> Result:
    """An evaluation of the small set. scorer: another task that scores pairs, of images with sides of `scorer_size`
    pixels; settings: of the task."""
    tokenizer = load_tokenizer("builtin")
    context = TaskContext(RetrievalSettings("retrieval", **settings), SMALL, tokenizer, LENGTH)
    pair_scorer = None
    if scorer is not None:
        model = dataclasses.replace(SMALL, image_size=(scorer_size, scorer_size))
        pair_scorer = PairScorer(scorer, dataclasses.replace(context, model=model), "scorer")
    options = EvaluationOptions(mode=mode, rerank=rerank, scorer=pair_scorer)
    return RetrievalEvaluation([Scenes(holes)], context, options).measure(task, OPTIONS)


def measure_presence(task) -> dict[str, float]:
    """Of a dozen scenes."""
    context = TaskContext(RetrievalSettings("retrieval"), SMALL, load_tokenizer("builtin"), LENGTH)
    return presence_metrics(task, presence_sets([ScenesSource("val", 12, image_size=64)], context), OPTIONS)


class Killed(Exception):
    pass


def score_until_killed(task, evalset, folder: Path, monkeypatch, after: int, **storage) -> None:
    """Score until `after` passes are done; then everything stops, the last record half written."""
    match_scores, done = pairs.match_scores, []

    def dies(*args):
        if len(done) == after:
            raise Killed
        done.append(args)
        return match_scores(*args)

    with monkeypatch.context() as patch:
        patch.setattr(pairs, "match_scores", dies)
        try:
            score_all(task, evalset, folder=folder, **storage)
        except Killed:
            log = folder / ".pairs" / "0.bin"
            log.write_bytes(log.read_bytes()[:-5])
        else:
            raise AssertionError(f"there were no more than {after} passes")


def count_pairs(monkeypatch) -> list[int]:
    """Has the pairs of every pass from now on put into the list."""
    match_scores, counts = pairs.match_scores, []

    def counting(task, image, text):
        counts.append(len(text.tokens))
        return match_scores(task, image, text)

    monkeypatch.setattr(pairs, "match_scores", counting)
    return counts


def score_and_retrieve_on_rank(rank: int, port: int, folder: Path) -> None:
    """In one of two processes: go on with the scores in `folder`, re-rank, and measure presence; all into
    rank<n>.pt."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    init_from_env()
    scores = score_all(make_task(), make_set(holes=(4,)), folder=folder, fingerprint="a")
    result = retrieve("rerank", make_task(seed=4), make_task(), holes=(4,), rerank=(2, 3))
    presence = measure_presence(make_task())
    torch.save({"scores": scores, "result": result, "presence": presence}, folder / f"rank{rank}.pt")
