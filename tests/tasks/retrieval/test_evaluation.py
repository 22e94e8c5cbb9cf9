"""What retrieval is evaluated on, and its rows against a sort per query."""

import numpy as np
import pytest
import torch
from colour_images import ColourImages
from PIL import Image
from small_retrieval import IMAGES, cosines, count_pairs, make_set, make_task, plain_scores, retrieve, score_all

from fiber_cli.data.sources.karpathy import KarpathySource
from fiber_cli.errors import UserError
from fiber_cli.tasks.retrieval.evaluation import RetrievalSet
from fiber_cli.tasks.retrieval.pairs import sums


def test_retrieval_set_counts_and_truth(tokenizer):
    texts = [("a",), ("a", "b"), ("a", "b", "c"), ("a",), (), ("a", "b", "c"), ("a",)]
    sources = [ColourImages(7, bad=[2], captions=texts.__getitem__), ColourImages(3, "b")]
    data = RetrievalSet(sources, tokenizer, 6, (16, 24))
    assert len(data.images) == 6 + 3
    assert data.left_out == [("colours/4", "no caption")]
    assert data.images.ids[:5] == [f"colours/{i}" for i in (0, 1, 2, 3, 5)]
    assert data.text_image.tolist() == [0, 1, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8]
    assert len(data.texts) == 20
    assert data.text_image.dtype == np.int64
    for world in (1, 2, 4, 12):  # also more ranks than images
        for workers in (0, 1) if world == 2 else (0,):
            options = {"world": world, "batch_size": 2, "workers": workers}
            parts = [list(data.images.loader(rank=r, **options)) for r in range(world)]
            batches = [batch for part in parts for batch in part]
            assert torch.cat([batch["index"] for batch in batches]).tolist() == [0, 1, 3, 4, 5, 6, 7, 8]
            assert [pair for batch in batches for pair in batch["bad"]] == [("colours/2", "not there")]
            assert torch.cat([batch["pixels"] for batch in batches if len(batch["index"])]).shape == (8, 3, 16, 24)
            sizes = [sum(len(batch["index"]) + len(batch["bad"]) for batch in part) for part in parts]
            assert max(sizes) - min(sizes) <= 1
    texts = [b for r in range(3) for b in data.texts.loader(rank=r, world=3, batch_size=4, workers=0)]
    assert torch.cat([batch["index"] for batch in texts]).tolist() == list(range(20))
    ids = torch.cat([batch["ids"] for batch in texts])
    assert ids.shape == (20, 6)
    assert ids[3].tolist() == tokenizer("a")["input_ids"] + [1] * 3
    cut = sum(len(tokenizer(text)["input_ids"]) > 6 for text in data.texts.texts)
    assert sum(batch["truncated"] for batch in texts) == cut > 0


def test_retrieval_set_of_real_photographs(shared, tokenizer):
    folder = shared / "data" / "flickr8k-1k"
    source = KarpathySource(folder / "dataset_flickr8k.json", folder / "images", "val")
    data = RetrievalSet([source], tokenizer, 40, 32)
    assert (len(data.images), len(data.texts)) == (100, 500)
    assert (data.text_image == np.arange(500) // 5).all()
    batch = next(iter(data.images.loader(rank=0, world=1, batch_size=4, workers=0)))
    wanted = np.asarray(source.image(3).resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(batch["pixels"][3].permute(1, 2, 0).numpy() - wanted).max() <= 1


def brute(itc, itm, owner, k, temperature=0.07):
    """recall@1, 5, 10 of fusion over the k best by ITC, by a sort per query; temperature 1: of the raw sum."""
    hits = {f"{direction}@{rank}": [] for direction in ("ir", "tr") for rank in (1, 5, 10)}
    total = itc.astype(np.float64) / temperature + itm
    for direction, scores, final in (("ir", itc.T, total.T), ("tr", itc, total)):
        for query in range(len(scores)):
            candidates = sorted(range(scores.shape[1]), key=lambda c: -scores[query, c])[:k]
            ranked = sorted(candidates, key=lambda c: -final[query, c])
            right = {owner[query]} if direction == "ir" else set(np.flatnonzero(owner == query).tolist())
            for rank in (1, 5, 10):
                hits[f"{direction}@{rank}"].append(bool(right & set(ranked[:rank])))
    return {name: 100 * float(np.mean(values)) for name, values in hits.items()}


def wanted_pairs(itc, k):
    """How many pairs re-ranking of the k best has, both ways."""
    wanted = set()
    for image in range(itc.shape[0]):
        wanted.update((image, text) for text in np.argsort(-itc[image])[:k])
    for text in range(itc.shape[1]):
        wanted.update((image, text) for image in np.argsort(-itc[:, text])[:k])
    return len(wanted)


def test_reranking_equals_a_sort_per_query_for_every_k_of_one_pass(task, itc_task, evalset, expected, monkeypatch):
    ks = (1, 2, 4, 1000)
    counts = count_pairs(monkeypatch)
    metrics = retrieve("rerank", itc_task, task, rerank=ks).metrics
    assert sum(counts) == expected.size
    itc, owner = cosines(itc_task, evalset), evalset.text_image
    rows = {k: brute(itc, expected, owner, k) for k in ks}
    for k in ks:
        assert {name: metrics[f"rerank-{k}/{name}"] for name in rows[k]} == pytest.approx(rows[k]), k
    assert len({tuple(of_k.values()) for of_k in rows.values()}) > 2
    raw = brute(itc, expected, owner, 4, temperature=1)
    assert {name: metrics[f"rerank-4-raw/{name}"] for name in raw} == pytest.approx(raw)
    ensemble = retrieve("itc+itm", itc_task, task).metrics
    modes = ("itc", "itm", "itc+itm", "itc+itm-raw")
    assert ensemble.keys() == {f"{mode}/{name}" for mode in modes for name in rows[1]}
    for name in rows[1]:
        assert ensemble[f"itc+itm/{name}"] == metrics[f"rerank-1000/{name}"]
        assert ensemble[f"itc+itm-raw/{name}"] == metrics[f"rerank-1000-raw/{name}"]
        assert ensemble[f"itc/{name}"] == metrics[f"itc/{name}"]
    counts.clear()
    retrieve("rerank", itc_task, task, rerank=(1, 2))
    assert sum(counts) == wanted_pairs(itc, 2) < expected.size


@pytest.mark.parametrize(("temperature", "own_scorer"), [(0.5, True), (0.02, False)])
def test_sums_are_at_the_temperature_of_the_dual_encoder(evalset, temperature, own_scorer):
    """Whatever the temperature of the model that scores the pairs."""
    itc_task = make_task(seed=4, temperature=temperature)
    scorer = itc_task if own_scorer else make_task(temperature=0.9)
    result = retrieve("itc+itm", itc_task, None if own_scorer else scorer)
    itc, itm, owner = cosines(itc_task, evalset), score_all(scorer, evalset).scores, evalset.text_image
    everything = 10**6
    logits = brute(itc, itm, owner, everything, temperature)
    assert {name: result.metrics[f"itc+itm/{name}"] for name in logits} == pytest.approx(logits)
    raw = brute(itc, itm, owner, everything, 1)
    assert {name: result.metrics[f"itc+itm-raw/{name}"] for name in raw} == pytest.approx(raw)
    assert any(f"cosine / {temperature:g}" in note and "-raw" in note for note in result.notes)
    listed = result.files["rankings.json"]
    assert listed["scores"] == "itc+itm"
    total = itc[0] / temperature + itm[0]
    assert listed["text_retrieval"][0]["best"][0][1] == pytest.approx(total.max(), abs=1e-3)


def test_a_cosine_is_not_drowned_by_a_large_logit():
    cosines, matched = np.array([0.9, 0.1]), np.array([0.0, 5.0])
    assert sums(cosines, matched, 1 / 0.07).logits.argmax() == 0
    assert sums(cosines, matched, 1 / 0.07).raw.argmax() == 1


def test_an_itm_evaluation_and_a_dual_encoder_speak_of_no_sum(task):
    for mode in ("itm", "itc"):
        result = retrieve(mode, task)
        assert not any("raw" in text for text in [*result.metrics, *result.notes])


def test_itm_alone_and_rankings(task, evalset, expected):
    result = retrieve("itm", task)
    rows = brute(np.zeros_like(expected), expected, evalset.text_image, 10**6)
    assert result.metrics == pytest.approx({f"itm/{name}": value for name, value in rows.items()})
    ranked = result.files["rankings.json"]["text_retrieval"][2]
    order = np.argsort(-expected[2])[:10]
    assert ranked["image"] == evalset.images.ids[2]
    assert [text for text, _ in ranked["best"]] == [evalset.texts.texts[t] for t in order]
    assert [score for _, score in ranked["best"]] == pytest.approx(expected[2, order], abs=1e-4)
    ranked = result.files["rankings.json"]["image_retrieval"][4]
    assert [name for name, _ in ranked["best"]] == [evalset.images.ids[i] for i in np.argsort(-expected[:, 4])]
    assert ranked["text"] == evalset.texts.texts[4]


@pytest.mark.parametrize("mode", ["itm", "itc+itm", "rerank"])
def test_unreadable_images_go_with_their_texts(task, itc_task, evalset, expected, mode):
    result = retrieve(mode, itc_task, task, holes=(0, 3), rerank=(2, 5))
    readable = [1, 2, 4, 5]
    columns = np.flatnonzero(np.isin(evalset.text_image, readable))
    owner = np.searchsorted(readable, evalset.text_image[columns])
    itc, itm = (scores[np.ix_(readable, columns)] for scores in (cosines(itc_task, evalset), expected))
    name, rows = {
        "itm": ("itm", brute(itc * 0, itm, owner, 10**6)),
        "itc+itm": ("itc+itm", brute(itc, itm, owner, 10**6)),
        "rerank": ("rerank-2", brute(itc, itm, owner, 2)),
    }[mode]
    assert {key: result.metrics[f"{name}/{key}"] for key in rows} == pytest.approx(rows)
    assert result.counts == {"images": 4, "texts": len(columns)}
    assert [reason for _, reason in result.bad] == ["damaged", "damaged"]


def test_the_fusion_model_may_have_another_image_size(task, itc_task, evalset):
    metrics = retrieve("rerank", itc_task, task, rerank=(3,), scorer_size=96).metrics
    large = make_set(image_size=96)
    rows = brute(cosines(itc_task, evalset), plain_scores(task, large), evalset.text_image, 3)
    assert {name: metrics[f"rerank-3/{name}"] for name in rows} == pytest.approx(rows)


def test_what_a_checkpoint_lacks_is_named(task):
    contrastive, matching = make_task(itm=0.0), make_task(itc=0.0)
    with pytest.raises(UserError, match=r"fusion needs an ITM head.*--itm-checkpoint"):
        retrieve("itc+itm", contrastive)
    with pytest.raises(UserError, match="mode rerank needs a checkpoint trained with ITC"):
        retrieve("rerank", matching, task, rerank=(5,))
    with pytest.raises(UserError, match="no image with a text"):
        retrieve("itc+itm", task, holes=range(IMAGES))


def test_validation_takes_what_the_task_has():
    of_itc = retrieve(None, make_task(itm=0.0), itm=0.0).metrics
    assert set(of_itc) == {f"itc/{direction}@{k}" for direction in ("ir", "tr") for k in (1, 5, 10)}
    assert "itm/ir@1" in retrieve(None, make_task(itc=0.0), itc=0.0, itm_negatives="random").metrics


def test_two_ranks_equal_one(task, itc_task, two_ranks):
    alone = retrieve("rerank", itc_task, task, holes=(4,), rerank=(2, 3))
    for saved in two_ranks.ranks:
        assert saved["result"].metrics == alone.metrics
        assert saved["result"].counts == alone.counts
        assert saved["result"].bad == alone.bad
