"""Pair scores against plain passes from pixels, whatever is cached, spilled, stopped or shared out; and the retrieval
rows against a sort per query."""

import dataclasses
import os

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from benchmarks.coarse_step import count_operations
from fiber_cli.distributed import collectives as dist
from fiber_cli.tasks.retrieval import pairs
from fiber_cli.tasks.evalset import RetrievalSet
from fiber_cli.data.images import normalize
from fiber_cli.data.scenes.drawing import ScenesSource
from fiber_cli.data.source import BadSample
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError
from fiber_cli.evaluation.evaluate import measure
from fiber_cli.tasks.retrieval.metrics import recalls
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.model.fusion import ImageStem, TextStem
from fiber_cli.tasks.retrieval.evaluation import retrieve
from fiber_cli.tasks.coarse.task import CoarseTask

SMALL = FiberConfig(
    image=ImageConfig(embed_dim=16, depths=(2, 2, 2), heads=(1, 2, 4), window=2, patch=8, drop_path=0.0),
    text=TextConfig(layers=4, hidden=32, heads=4, intermediate=64, vocab=2000, positions=60, dropout=0.0),
    fusion_layers=3,
    hidden=24,
    image_size=(64, 64),
)
IMAGES, LENGTH = 6, 40
OPTIONS = {"batch_size": 4, "workers": 0}


class Scenes(ScenesSource):
    """Scenes with three captions for each picture but the second, which has one; numbers in `holes` are unreadable."""

    holes = ()

    def image(self, i, at_least=0):
        if i in self.holes:
            raise BadSample("damaged")
        return super().image(i, at_least)

    def captions(self, i):
        made = super().captions(i)
        return made[: 1 if i == 1 else 3]


def make(seed=0, config=SMALL, **settings):
    torch.manual_seed(seed)
    task = CoarseTask(config, **settings).eval()
    for name, parameter in task.named_parameters():
        if name.endswith(".alpha"):
            torch.nn.init.constant_(parameter, 0.7)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return task


def make_set(holes=(), image_size=64):
    source = Scenes("val", IMAGES, image_size=64)
    source.holes = holes
    return RetrievalSet([source], load_tokenizer("builtin"), LENGTH, image_size)


@pytest.fixture(scope="module")
def task():
    return make()


@pytest.fixture(scope="module")
def evalset():
    return make_set()


@torch.no_grad()
def plain(task, evalset):
    """Every pair on its own, from pixels and padded ids: (images, texts)."""
    scores = np.zeros((len(evalset.images), len(evalset.texts)), dtype=np.float32)
    for i in range(len(evalset.images)):
        for t in range(len(evalset.texts)):
            text = evalset.texts.read(t)
            image = task.encoder.image_stem(normalize(evalset.images.read(i)["pixels"][None]))
            scores[i, t] = task.match(image, task.encoder.text_stem(text["ids"][None], text["mask"][None]))[0, 1]
    return scores


@pytest.fixture(scope="module")
def expected(task, evalset):
    scores = plain(task, evalset)
    assert scores.std() > 1e-2  # else a comparison would say little
    return scores


def everything(evalset):
    return [np.arange(len(evalset.texts))] * len(evalset.images)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_scores_are_those_of_every_pair_from_pixels(task, evalset, expected, batch_size):
    found = pairs.score_pairs(
        task, evalset.images, evalset.texts, everything(evalset), batch_size=batch_size, workers=0
    )
    np.testing.assert_allclose(found.scores, expected, atol=1e-5, rtol=0)
    assert found.scores.dtype == np.float32 and not found.bad and not found.truncated


def test_only_wanted_pairs_are_scored(task, evalset, expected):
    rng = np.random.default_rng(0)
    chosen = rng.random(expected.shape) < 0.4
    chosen[2] = False
    wanted = [np.flatnonzero(row) for row in chosen]
    found = pairs.score_pairs(task, evalset.images, evalset.texts, wanted, **OPTIONS).scores
    assert np.array_equal(~np.isnan(found), chosen)
    np.testing.assert_allclose(found[chosen], expected[chosen], atol=1e-5, rtol=0)


def test_stems_in_a_file_give_the_same_scores(task, evalset, tmp_path, monkeypatch):
    kept, make_stems = [], pairs.TextStems
    monkeypatch.setattr(pairs, "TextStems", lambda *a, **k: kept.append(make_stems(*a, **k)) or kept[-1])
    both = [
        pairs.score_pairs(
            task, evalset.images, evalset.texts, everything(evalset), **OPTIONS, memory=memory, folder=tmp_path
        ).scores
        for memory in (pairs.MEMORY, 1000)
    ]
    assert [stems.spilled for stems in kept] == [False, True]
    assert np.array_equal(*both)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="no room for .* text stems.*No space left"):
        pairs.TextStems(10, 10, 10, memory=0, folder=tmp_path)


class Killed(Exception):
    pass


def run_killed(task, evalset, folder, monkeypatch, after, **options):
    """Score until `after` passes are done; then everything stops, the last record half written."""
    scored, calls = pairs.match_scores, []

    def dies(*args):
        if len(calls) == after:
            raise Killed
        calls.append(len(args[2].tokens))
        return scored(*args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pairs, "match_scores", dies)
        pairs.score_pairs(task, evalset.images, evalset.texts, everything(evalset), folder=folder, **OPTIONS, **options)
    log = folder / ".pairs" / "0.bin"
    log.write_bytes(log.read_bytes()[:-5])


def count_pairs(monkeypatch):
    scored, done = pairs.match_scores, []
    monkeypatch.setattr(pairs, "match_scores", lambda *args: done.append(len(args[2].tokens)) or scored(*args))
    return done


def test_a_killed_run_goes_on(task, evalset, expected, tmp_path, monkeypatch, capsys):
    run_killed(task, evalset, tmp_path, monkeypatch, 7, fingerprint="a")
    run_killed(task, evalset, tmp_path, monkeypatch, 4, fingerprint="a")
    done = count_pairs(monkeypatch)
    found = pairs.score_pairs(
        task, evalset.images, evalset.texts, everything(evalset), folder=tmp_path, fingerprint="a", **OPTIONS
    )
    np.testing.assert_allclose(found.scores, expected, atol=1e-5, rtol=0)
    # 11 passes of up to 4 pairs, less the two records that were cut.
    assert expected.size - 44 <= sum(done) <= expected.size - 9 * 4 + 4
    assert "pairs were scored before" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_scores_of_other_weights_are_never_mixed_in(task, evalset, tmp_path, monkeypatch, capsys):
    run_killed(task, evalset, tmp_path, monkeypatch, 5, fingerprint="a")
    other = make(seed=1)
    found = pairs.score_pairs(
        other, evalset.images, evalset.texts, everything(evalset), folder=tmp_path, fingerprint="b", **OPTIONS
    )
    np.testing.assert_allclose(found.scores, plain(other, evalset), atol=1e-5, rtol=0)
    assert "starting afresh" in capsys.readouterr().err


def test_progress_without_a_terminal_is_a_line_now_and_then(task, evalset, capsys, monkeypatch):
    monkeypatch.setattr(pairs, "REPORT_EVERY", 0.0)
    pairs.score_pairs(task, evalset.images, evalset.texts, everything(evalset), **OPTIONS)
    lines = [line.strip() for line in capsys.readouterr().err.splitlines() if line.strip()]
    total = len(evalset.images) * len(evalset.texts)
    assert lines[1].startswith(f"pairs 4/{total}  ") and lines[-1].startswith(f"pairs {total}/{total}  ")
    assert all(" pairs/s  ETA " in line for line in lines)


def test_groups_hold_every_pair_once_and_are_full():
    rng = np.random.default_rng(3)
    rows = [rng.permutation(50)[: rng.integers(0, 12)] for _ in range(20)]
    groups = list(pairs.grouped(rows, 5))
    flat = [(row, int(t)) for group in groups for row, texts in group for t in texts]
    assert flat == [(row, int(t)) for row, texts in enumerate(rows) for t in texts]
    assert all(0 < sum(len(texts) for _, texts in group) <= 5 for group in groups)


@torch.no_grad()
def test_fusing_for_a_pooler_gives_the_pooled_numbers_of_the_whole_pass_for_less():
    """K texts an image, first token and mean alone, against the plain pass over repeated images."""
    task = make()
    g = torch.Generator().manual_seed(5)
    image = ImageStem(torch.randn(2, 4, 4, 32, generator=g))
    mask = torch.arange(9)[None] < torch.tensor([[9], [3], [5], [7], [2], [9]])
    text = TextStem(torch.randn(6, 9, 32, generator=g), mask)
    repeated = ImageStem(image.map.repeat_interleave(3, 0))
    whole = task.encoder.fuse(repeated, text)
    short = task.encoder.fuse(image, text, pooled=True)
    torch.testing.assert_close(short.pyramid[-1], whole.pyramid[-1].mean((1, 2), keepdim=True), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(short.text, whole.text[:, :1], atol=1e-5, rtol=1e-5)
    shared = task.encoder.fuse(image, text)
    torch.testing.assert_close(shared.pyramid[-1], whole.pyramid[-1], atol=1e-5, rtol=1e-5)
    operations = [
        count_operations(lambda: task.encoder.fuse(repeated, text)),
        count_operations(lambda: task.encoder.fuse(image, text)),
        count_operations(lambda: task.encoder.fuse(image, text, pooled=True)),
    ]
    assert operations[0] > operations[1] > operations[2]


def test_one_fused_layer(evalset):
    task = make(config=dataclasses.replace(SMALL, fusion_layers=1))
    found = pairs.score_pairs(task, evalset.images, evalset.texts, everything(evalset), **OPTIONS)
    np.testing.assert_allclose(found.scores, plain(task, evalset), atol=1e-5, rtol=0)


def brute(itc, itm, owner, k):
    """recall@1, 5, 10 of fusion over the k best by ITC, by a sort per query."""
    hits = {f"{d}@{r}": [] for d in ("ir", "tr") for r in (1, 5, 10)}
    total = itc.astype(np.float64) + itm
    for direction, scores, final in (("ir", itc.T, total.T), ("tr", itc, total)):
        for query in range(len(scores)):
            candidates = sorted(range(scores.shape[1]), key=lambda c: -scores[query, c])[:k]
            ranked = sorted(candidates, key=lambda c: -final[query, c])
            right = {owner[query]} if direction == "ir" else set(np.flatnonzero(owner == query).tolist())
            for r in (1, 5, 10):
                hits[f"{direction}@{r}"].append(bool(right & set(ranked[:r])))
    return {name: 100 * float(np.mean(values)) for name, values in hits.items()}


@pytest.fixture(scope="module")
def itc_task():
    return make(seed=4)


@torch.no_grad()
def cosines(task, evalset):
    images = torch.stack([evalset.images.read(i)["pixels"] for i in range(len(evalset.images))])
    texts = [evalset.texts.read(t) for t in range(len(evalset.texts))]
    ids, mask = (torch.stack([text[name] for text in texts]) for name in ("ids", "mask"))
    return (task.predict({"pixels": images}) @ task.predict({"ids": ids, "mask": mask}).T).numpy()


def test_reranking_equals_a_sort_per_query_for_every_k_of_one_pass(task, itc_task, evalset, expected, monkeypatch):
    ks = (1, 2, 4, 1000)
    done = count_pairs(monkeypatch)
    found = retrieve("rerank", itc_task, evalset, task, evalset, rerank=ks, **OPTIONS).metrics
    itc, owner = cosines(itc_task, evalset), evalset.text_image
    for k in ks:
        rows = brute(itc, expected, owner, k)
        assert {name: found[f"rerank-{k}/{name}"] for name in rows} == pytest.approx(rows), k
    assert len({tuple(brute(itc, expected, owner, k).values()) for k in ks}) > 2
    ensemble = retrieve("itc+itm", itc_task, evalset, task, evalset, **OPTIONS).metrics
    assert set(ensemble) == {
        f"{m}/{d}@{r}" for m in ("itc", "itm", "itc+itm") for d in ("ir", "tr") for r in (1, 5, 10)
    }
    for name in brute(itc, expected, owner, 1):
        assert ensemble[f"itc+itm/{name}"] == found[f"rerank-1000/{name}"]
        assert ensemble[f"itc/{name}"] == found[f"itc/{name}"]
    assert sum(done) == 2 * expected.size
    done.clear()
    retrieve("rerank", itc_task, evalset, task, evalset, rerank=(1, 2), **OPTIONS)
    union = sum(
        len(set(np.argsort(-itc[i])[:2]) | {t for t in range(len(owner)) if i in np.argsort(-itc[:, t])[:2]})
        for i in range(IMAGES)
    )
    assert sum(done) == union < expected.size


def test_candidates_outside_the_best_are_not_retrieved():
    """Two images, so that even the last place would be a hit at 5."""
    scores = np.array([[-np.inf, 1.0], [2.0, -np.inf]])
    assert set(recalls(scores, np.array([0, 1])).values()) == {0.0}
    with pytest.raises(ValueError, match="NaN"):
        recalls(np.array([[np.nan, 1.0], [2.0, 1.0]]), np.array([0, 1]))


def test_itm_alone_and_rankings(task, evalset, expected):
    found = retrieve("itm", None, None, task, evalset, **OPTIONS)
    everything_counts = brute(np.zeros_like(expected), expected, evalset.text_image, 10**6)
    assert found.metrics == pytest.approx({f"itm/{name}": value for name, value in everything_counts.items()})
    ranked = found.files["rankings.json"]["text_retrieval"][2]
    order = np.argsort(-expected[2])[:10]
    assert ranked["image"] == evalset.images.ids[2]
    assert [text for text, _ in ranked["best"]] == [evalset.texts.texts[t] for t in order]
    assert [score for _, score in ranked["best"]] == pytest.approx(expected[2, order], abs=1e-4)
    ranked = found.files["rankings.json"]["image_retrieval"][4]
    assert [name for name, _ in ranked["best"]] == [evalset.images.ids[i] for i in np.argsort(-expected[:, 4])]
    assert ranked["text"] == evalset.texts.texts[4]


@pytest.mark.parametrize("mode", ["itm", "itc+itm", "rerank"])
def test_unreadable_images_go_with_their_texts(task, itc_task, evalset, expected, mode):
    broken = make_set(holes=(0, 3))
    found = retrieve(mode, itc_task, broken, task, broken, rerank=(2, 5), **OPTIONS)
    keep = [1, 2, 4, 5]
    columns = np.flatnonzero(np.isin(evalset.text_image, keep))
    owner = np.searchsorted(keep, evalset.text_image[columns])
    itc, itm = (scores[np.ix_(keep, columns)] for scores in (cosines(itc_task, evalset), expected))
    name, rows = {
        "itm": ("itm", brute(itc * 0, itm, owner, 10**6)),
        "itc+itm": ("itc+itm", brute(itc, itm, owner, 10**6)),
        "rerank": ("rerank-2", brute(itc, itm, owner, 2)),
    }[mode]
    assert {key: found.metrics[f"{name}/{key}"] for key in rows} == pytest.approx(rows)
    assert (found.counts["images"], found.counts["texts"]) == (4, len(columns))
    assert [reason for _, reason in found.counts["bad"]] == ["damaged", "damaged"]


def test_the_fusion_model_may_have_another_image_size(task, itc_task, evalset):
    large = make_set(image_size=96)
    found = retrieve("rerank", itc_task, evalset, task, large, rerank=(3,), **OPTIONS).metrics
    rows = brute(cosines(itc_task, evalset), plain(task, large), evalset.text_image, 3)
    assert {name: found[f"rerank-3/{name}"] for name in rows} == pytest.approx(rows)


def test_what_a_checkpoint_lacks_is_named(task, evalset):
    contrastive, matching = make(itm=0.0), make(itc=0.0)
    with pytest.raises(UserError, match="fusion needs an ITM head.*--itm-checkpoint"):
        retrieve("itc+itm", contrastive, evalset, contrastive, evalset, **OPTIONS)
    with pytest.raises(UserError, match="mode rerank needs a checkpoint trained with ITC"):
        retrieve("rerank", matching, evalset, task, evalset, rerank=(5,), **OPTIONS)
    nothing = make_set(holes=range(IMAGES))
    with pytest.raises(UserError, match="no image with a text"):
        retrieve("itc+itm", task, nothing, task, nothing, **OPTIONS)
    # Validation takes what the task has.
    assert set(measure(contrastive, evalset, **OPTIONS).metrics) == {
        f"itc/{d}@{k}" for d in ("ir", "tr") for k in (1, 5, 10)
    }
    assert "itm/ir@1" in measure(matching, evalset, **OPTIONS).metrics


def on_rank(rank, port, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    dist.init_from_env()
    evalset = make_set(holes=(4,))
    scores = pairs.score_pairs(
        make(), evalset.images, evalset.texts, everything(evalset), folder=folder, fingerprint="a", **OPTIONS
    )
    found = retrieve("rerank", make(seed=4), evalset, make(), evalset, rerank=(2, 3), **OPTIONS)
    torch.save((*scores, *found), folder / f"rank{rank}.pt")


def test_two_ranks_equal_one_and_go_on_from_what_one_left(task, itc_task, tmp_path, monkeypatch):
    evalset = make_set(holes=(4,))
    run_killed(task, evalset, tmp_path, monkeypatch, 6, fingerprint="a")
    mp.start_processes(on_rank, args=(dist.free_port(), tmp_path), nprocs=2, start_method="spawn")
    alone = pairs.score_pairs(task, evalset.images, evalset.texts, everything(evalset), **OPTIONS)
    one = retrieve("rerank", itc_task, evalset, task, evalset, rerank=(2, 3), **OPTIONS)
    for rank in (0, 1):
        scores, bad, truncated, metrics, counts, *_ = torch.load(tmp_path / f"rank{rank}.pt", weights_only=False)
        np.testing.assert_allclose(scores, alone.scores, atol=1e-5, rtol=0)
        assert (bad, truncated) == (alone.bad, alone.truncated)
        assert metrics == one.metrics and counts == one.counts
    assert not (tmp_path / ".pairs").exists()
