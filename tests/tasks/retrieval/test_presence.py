"""The thresholds that tell whether a picture of a folder shows what a text says, against numbers worked out by hand."""

import dataclasses

import numpy as np
import pytest
from small_retrieval import LENGTH, OPTIONS, SMALL, make_task, measure_presence

from fiber_cli.checkpoints.config import CheckpointConfig
from fiber_cli.data.scenes.queries import fits, queries
from fiber_cli.data.source import BadSample, CaptionSource
from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.data.text import load_tokenizer
from fiber_cli.data.words import words_of
from fiber_cli.tasks import declared
from fiber_cli.tasks.coarse.settings import CoarseSettings
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.prediction import predict_all
from fiber_cli.tasks.retrieval import presence
from fiber_cli.tasks.retrieval.evaluation import RetrievalEvaluation
from fiber_cli.tasks.retrieval.pairs import score_pairs
from fiber_cli.tasks.retrieval.presence import (
    Folders,
    Scores,
    best_least,
    best_of_folders,
    drawn_folders,
    presence_metrics,
    presence_sets,
)

COUNT = 12
NO = float("nan")


class Captions(CaptionSource):
    """Six pictures of scenes, twice each, whose captions say which; the last cannot be read."""

    name = "captions"

    def __init__(self):
        self.scenes = ScenesSource("val", COUNT, image_size=64)

    def total(self):
        return COUNT

    def key(self, i):
        return str(i // 2)

    def captions(self, i):
        return ("one of all",) if i in (4, 8) else (f"picture {i // 2}", f"number {i}")

    def image(self, i, at_least=0):
        if i == COUNT - 1:
            raise BadSample("damaged")
        return self.scenes.image(i // 2)


def context(**settings):
    return TaskContext(CoarseSettings("coarse", **settings), SMALL, load_tokenizer("builtin"), LENGTH)


def test_the_best_threshold_is_another():
    """With 3 the true ones are all found and one of four false ones fires: F1 is 2 / (1 + 0.25 + 1)."""
    assert best_least(Scores(np.array([4.0, 5, 6, 9]), np.array([-1.0, 0, 2, 5.5]))) == 3
    # Equally good from 1 to 4: the middle.
    assert best_least(Scores(np.array([4.0, 5]), np.array([0.0, 1]))) == 2.5


def test_a_threshold_that_tells_nothing_denies_something():
    same = np.array([1.0, 2, 3, 4])
    assert best_least(Scores(same, same)) == 1


def test_texts_without_a_score_of_their_own_or_a_folder_without_what_they_say_count():
    scores = np.array([[5.0, 1, 7, NO], [0, 6, 3, 1], [1, 1, NO, 9]])
    present = np.array([[True, True, True, True], [True, True, False, False], [True, False, True, True]])
    absent = np.array([[False, True, False, False], [False, False, False, False], [True, False, False, False]])
    told = best_of_folders(scores, Folders(present, absent))
    assert (told.present.tolist(), told.absent.tolist()) == ([7], [1])


@pytest.mark.parametrize("has_itc", [True, False])
def test_folders_hold_what_they_should_not_or_are_of_another_size(monkeypatch, has_itc):
    """Of two pictures drawn alike the dual encoder's best are looked at; one picture cannot be read."""
    monkeypatch.setattr(presence, "FOLDER", 6)
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(40, 40))
    is_true = (rng.random((40, 40)) < 0.3) | np.eye(40, dtype=bool)
    is_true[7] = True
    is_readable = np.arange(40) != 11
    folders = drawn_folders(logits, is_true, is_readable, has_itc=has_itc)
    assert not (folders.absent & is_true).any()
    assert (folders.absent.sum(1) == [0 if text == 7 else 3 for text in range(40)]).all()
    assert (folders.present.sum(1) == [2 if text == 11 else 3 for text in range(40)]).all()
    assert (np.diagonal(folders.present) == is_readable).all()
    assert not (folders.present | folders.absent)[:, 11].any()
    again = drawn_folders(logits, is_true, is_readable, has_itc=has_itc)
    assert all((one == other).all() for one, other in zip(folders, again, strict=True))
    # Of five drawn at random beside its own the better two; of all 38 the best would be among them.
    beside = np.where(np.eye(40, dtype=bool) | ~is_readable, -np.inf, logits)
    is_best = folders.present[np.arange(40), beside.argmax(1)]
    assert 0 < is_best.mean() < 0.5


def test_what_a_query_is_true_of_is_taken_for_false():
    source = ScenesSource("val", COUNT, image_size=64)
    of_queries, of_captions = presence_sets([source], context())
    assert len(of_queries.texts) == COUNT
    for row, text in enumerate(of_queries.texts.texts):
        [query] = [query for query in queries(source[row]) if query.text == text]
        assert of_queries.is_true[row].tolist() == [fits(query, source[i]) for i in range(COUNT)]
        assert of_queries.is_true[row, row]
    assert (of_captions.is_true == np.eye(COUNT, dtype=bool)).all()


def test_a_caption_is_taken_to_be_false_of_its_own_picture_or_of_one_with_the_same_caption():
    [evalset] = presence_sets([Captions()], context())
    assert evalset.texts.texts[:6] == ["picture 0", "number 1", "picture 1", "number 3", "one of all", "number 5"]
    true = [np.flatnonzero(row).tolist() for row in evalset.is_true]
    assert true[:6] == [[0, 1], [0, 1], [2, 3], [2, 3], [4, 5, 8], [4, 5]]


def test_more_texts_are_scored_than_are_bounded(monkeypatch):
    monkeypatch.setattr(presence, "TEXTS", 9)
    scored = []
    wrapped = score_pairs
    monkeypatch.setattr(
        presence, "score_pairs", lambda *args, **more: scored.append(sum(map(len, args[3]))) or wrapped(*args, **more)
    )
    sets = presence_sets([ScenesSource("val", 40, image_size=64)], context())
    assert [len(each.texts) for each in sets] == [9, 9]
    presence_metrics(make_task(), sets[:1], OPTIONS)
    assert scored[0] <= 9 * 2 * presence.RERANKED
    assert presence_sets([ScenesSource("val", presence.FEWEST - 1)], context()) == []


@pytest.mark.parametrize("settings", [{}, {"itm": 0.0}, {"itc": 0.0, "itm_negatives": "random"}])
def test_other_scores_are_told_apart_than_searches_rank_by(monkeypatch, settings):
    """With a threshold whatever it tells, against the scores of all pairs, in folders that hold all pictures."""
    monkeypatch.setattr(presence, "TOLD_APART", -100.0)
    monkeypatch.setattr(presence, "RERANKED", COUNT)
    task = make_task(**settings)
    [evalset] = presence_sets([Captions()], context())
    metrics = presence_metrics(task, [evalset], OPTIONS)
    readable = list(range(COUNT - 1))
    total = np.zeros((COUNT, COUNT))
    if task.temperature is not None:
        images = predict_all(task, evalset.images, OPTIONS).rows
        texts = predict_all(task, evalset.texts, OPTIONS).rows
        for text in range(COUNT):
            for image in readable:
                total[text, image] = texts[text] @ images[image] * task.logit_scale()
    if task.itm is not None:
        everything = [np.arange(COUNT)] * COUNT
        matched = score_pairs(task, evalset.images, evalset.texts, everything, OPTIONS).scores.T
        total += matched
    expected = {"search": total, "match": matched if task.itm is not None else None}
    for name, scores in expected.items():
        if (name == "search" and task.temperature is None) or scores is None:
            assert f"{name}/threshold" not in metrics
            continue
        present = scores[:, readable].max(1)[readable]
        absent = np.where(evalset.is_true, -np.inf, scores)[:, readable].max(1)[readable]
        least = metrics[f"{name}/threshold"]
        assert least == pytest.approx(best_least(Scores(present, absent)), abs=2e-3)
        assert metrics[f"{name}/present@best"] == pytest.approx(100 * (present >= least).mean())
        assert metrics[f"{name}/absent@best"] == pytest.approx(100 * (absent >= least).mean())
    assert (metrics["search/fewest_words"], metrics["search/most_words"]) == (2, 3)


def test_queries_and_captions_have_one_threshold_or_none_where_either_is_told_apart(monkeypatch):
    sets = presence_sets([ScenesSource("val", COUNT, image_size=64)], context())
    assert [evalset.of for evalset in sets] == ["queries", "captions"]
    best = {"queries": np.arange(10.0) - 5, "captions": np.arange(10.0) - 20}

    def scores(task, evalset, options):
        return {"search": Scores(np.arange(10.0), best[evalset.of])}

    monkeypatch.setattr(presence, "_scores", scores)
    metrics = presence_metrics(make_task(), sets, OPTIONS)
    assert metrics["search/threshold"] == pytest.approx(-5.5)
    assert metrics["search/queries/threshold"] == pytest.approx(-0.5)
    assert metrics["search/queries/absent@best"] == 50
    for evalset, kind in zip(sets, ("queries/", ""), strict=True):
        lengths = [len(words_of(text)) for text in evalset.texts.texts]
        assert metrics[f"search/{kind}fewest_words"] == min(lengths)
        assert metrics[f"search/{kind}most_words"] == max(lengths)
    best["queries"] = np.arange(10.0)
    metrics = presence_metrics(make_task(), sets, OPTIONS)
    assert metrics["search/queries/present@best"] == metrics["search/queries/absent@best"] == 100
    assert not {"search/queries/threshold", "search/queries/fewest_words"} & metrics.keys()
    assert metrics["search/threshold"] == pytest.approx(-5.5)


def test_only_validation_in_training_chooses_thresholds():
    source = ScenesSource("val", COUNT, image_size=64)
    asked = RetrievalEvaluation([source], context(), EvaluationOptions()).measure(make_task(), OPTIONS)
    assert not any(name.startswith(("search/", "match/")) for name in asked.metrics)
    chosen = RetrievalEvaluation([source], context(), EvaluationOptions(calibrate=True)).measure(make_task(), OPTIONS)
    assert {"itc/ir@1", "search/present@best", "match/absent@best"} <= chosen.metrics.keys()


def checkpoint_with(task: str, settings) -> CoarseTask:
    """The task as it is made of a config.json with these settings."""
    config = CheckpointConfig(SMALL, settings, LENGTH, None, "builtin")
    read = CheckpointConfig.from_json(config.to_json())
    return declared(task).load_module().from_context(TaskContext(read.task, SMALL, load_tokenizer("builtin"), LENGTH))


@pytest.mark.parametrize("task", ["coarse", "retrieval"])
def test_what_validation_chose_is_lost_on_the_way_to_the_model(task):
    declaration = declared(task)
    settings = declaration.settings(name=task, search_threshold=7.0)
    metrics = {"match/threshold": -0.25, "search/threshold": 9.5, "search/fewest_words": 8, "search/most_words": 12}
    metrics |= {"match/queries/threshold": -0.5, "search/queries/threshold": 6.5}
    metrics |= {"search/queries/fewest_words": 2, "search/queries/most_words": 4}
    values = declaration.calibrated_values(settings, metrics)
    assert values == {  # one is given by the recipe
        "match_threshold": -0.25,
        "fewest_words": 8,
        "most_words": 12,
        "query_match_threshold": -0.5,
        "query_search_threshold": 6.5,
        "fewest_query_words": 2,
        "most_query_words": 4,
    }
    made = checkpoint_with(task, dataclasses.replace(settings, **values))
    assert made.match_thresholds.of_lengths == ((-0.5, 2, 4), (-0.25, 8, 12))
    assert made.search_thresholds.of_lengths == ((6.5, 2, 4), (7, 8, 12))


@pytest.mark.parametrize("task", ["coarse", "retrieval"])
def test_a_checkpoint_from_before_queries_had_a_threshold_means_something_else(task):
    settings = declared(task).settings(name=task, match_threshold=-0.25, fewest_words=2, most_words=10)
    made = checkpoint_with(task, settings)
    assert made.match_thresholds.of_lengths == ((-0.25, 2, 10),)
    assert made.search_thresholds.of_lengths == ()


def test_two_ranks_choose_another_threshold_than_one(task, two_ranks):
    alone = measure_presence(task)
    assert "search/present@best" in alone
    for saved in two_ranks.ranks:
        assert saved["presence"] == pytest.approx(alone, abs=2e-3)
