"""Pair scores against plain passes from pixels, whatever is cached, spilled, stopped or shared out."""

import dataclasses

import numpy as np
import pytest
from small_retrieval import (
    OPTIONS,
    SMALL,
    count_pairs,
    make_set,
    make_task,
    plain_scores,
    score_all,
    score_until_killed,
)

from fiber_cli.tasks import progress
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.retrieval import pairs
from fiber_cli.tasks.retrieval.pairs import best_columns, grouped, score_pairs


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_scores_are_those_of_every_pair_from_pixels(task, evalset, expected, batch_size):
    result = score_all(task, evalset, PredictOptions(batch_size, workers=0))
    np.testing.assert_allclose(result.scores, expected, atol=1e-5, rtol=0)
    assert result.scores.dtype == np.float32
    assert not result.bad
    assert not result.truncated


def test_only_wanted_pairs_are_scored(task, evalset, expected):
    chosen = np.random.default_rng(0).random(expected.shape) < 0.4
    chosen[2] = False
    wanted = [np.flatnonzero(row) for row in chosen]
    scores = score_pairs(task, evalset.images, evalset.texts, wanted, OPTIONS).scores
    assert np.array_equal(~np.isnan(scores), chosen)
    np.testing.assert_allclose(scores[chosen], expected[chosen], atol=1e-5, rtol=0)


def test_one_fused_layer(evalset):
    task = make_task(config=dataclasses.replace(SMALL, fusion_layers=1))
    np.testing.assert_allclose(score_all(task, evalset).scores, plain_scores(task, evalset), atol=1e-5, rtol=0)


def test_stems_in_a_file_give_the_same_scores(task, evalset, tmp_path, monkeypatch):
    made, text_stems = [], pairs.TextStems

    def make_stems(*args, **options):
        made.append(text_stems(*args, **options))
        return made[-1]

    monkeypatch.setattr(pairs, "TextStems", make_stems)
    in_memory = score_all(task, evalset, folder=tmp_path).scores
    in_a_file = score_all(task, evalset, folder=tmp_path, memory=1000).scores
    assert [stems.spilled for stems in made] == [False, True]
    assert np.array_equal(in_memory, in_a_file)
    assert not list(tmp_path.iterdir())


def test_a_killed_run_goes_on(task, evalset, expected, tmp_path, monkeypatch, capsys):
    score_until_killed(task, evalset, tmp_path, monkeypatch, 7, fingerprint="a")
    score_until_killed(task, evalset, tmp_path, monkeypatch, 4, fingerprint="a")
    counts = count_pairs(monkeypatch)
    scores = score_all(task, evalset, folder=tmp_path, fingerprint="a").scores
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)
    # 11 passes of up to 4 pairs, less the two records that were cut.
    assert expected.size - 44 <= sum(counts) <= expected.size - 9 * 4 + 4
    assert "pairs were scored before" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_scores_of_other_weights_are_never_mixed_in(task, evalset, tmp_path, monkeypatch, capsys):
    score_until_killed(task, evalset, tmp_path, monkeypatch, 5, fingerprint="a")
    other = make_task(seed=1)
    scores = score_all(other, evalset, folder=tmp_path, fingerprint="b").scores
    np.testing.assert_allclose(scores, plain_scores(other, evalset), atol=1e-5, rtol=0)
    assert "starting afresh" in capsys.readouterr().err


def test_two_ranks_equal_one_and_go_on_from_what_one_left(task, two_ranks):
    alone = score_all(task, make_set(holes=(4,)))
    for saved in two_ranks.ranks:
        np.testing.assert_allclose(saved["scores"].scores, alone.scores, atol=1e-5, rtol=0)
        assert (saved["scores"].bad, saved["scores"].truncated) == (alone.bad, alone.truncated)
    assert not (two_ranks.folder / ".pairs").exists()


def test_progress_without_a_terminal_is_a_line_now_and_then(task, evalset, capsys, monkeypatch):
    monkeypatch.setattr(progress, "REPORT_EVERY", 0.0)
    score_all(task, evalset)
    lines = [line.strip() for line in capsys.readouterr().err.splitlines() if line.strip()]
    total = len(evalset.images) * len(evalset.texts)
    assert lines[1].startswith(f"pairs 4/{total}  ")
    assert lines[-1].startswith(f"pairs {total}/{total}  ")
    assert all(" pairs/s  ETA " in line for line in lines)


def test_groups_hold_every_pair_once_and_are_full():
    rng = np.random.default_rng(3)
    texts_of_images = [rng.permutation(50)[: rng.integers(0, 12)] for _ in range(20)]
    groups = list(grouped(texts_of_images, 5))
    pairs_in_groups = [(row, int(text)) for group in groups for row, texts in group for text in texts]
    assert pairs_in_groups == [(row, int(text)) for row, texts in enumerate(texts_of_images) for text in texts]
    sizes = [sum(len(texts) for _, texts in group) for group in groups]
    assert all(0 < size <= 5 for size in sizes)


@pytest.mark.parametrize("values", [5, 1000])
def test_partial_sorting_finds_others_than_sorting_all(values):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, values, (20, 300)).astype(np.float32)
    scores[3, :290] = np.nan
    scores[4] = np.nan
    scores[5, ::7] = np.inf
    scores[6, ::5] = -np.inf
    for k in (0, 1, 2, 50, 299, 300, 500):
        expected = np.stack([np.argsort(-row, kind="stable")[:k] for row in scores])
        assert np.array_equal(best_columns(scores, k), expected)
