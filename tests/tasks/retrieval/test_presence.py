"""The threshold that tells whether a picture shows what a text says, against numbers worked out by hand."""

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
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evaluation import EvaluationOptions
from fiber_cli.tasks.prediction import predict_all
from fiber_cli.tasks.retrieval import presence
from fiber_cli.tasks.retrieval.evaluation import RetrievalEvaluation
from fiber_cli.tasks.retrieval.pairs import score_pairs
from fiber_cli.tasks.retrieval.presence import Scores, best_least, presence_metrics, presence_sets, told_apart

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


def test_texts_without_a_score_of_their_own_or_another_picture_count():
    scores = np.array([[5.0, 1, 2], [0, 6, 3], [1, 1, NO]])
    others = np.array([[False, True, True], [False, False, False], [True, False, False]])
    told = told_apart(scores, others)
    assert (told.true.tolist(), told.false.tolist()) == ([5], [2])


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
    assert scored[0] <= 9 * (1 + presence.OTHERS)
    assert presence_sets([ScenesSource("val", presence.FEWEST - 1)], context()) == []


@pytest.mark.parametrize("settings", [{}, {"itm": 0.0}, {"itc": 0.0, "itm_negatives": "random"}])
def test_other_scores_are_told_apart_than_searches_rank_by(monkeypatch, settings):
    """With a threshold whatever it tells, against the scores of all pairs."""
    monkeypatch.setattr(presence, "TOLD_APART", -100.0)
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
    itc = total.copy()
    if task.itm is not None:
        everything = [np.arange(COUNT)] * COUNT
        matched = score_pairs(task, evalset.images, evalset.texts, everything, OPTIONS).scores.T
        total += matched
    expected = {"search": total, "match": matched if task.itm is not None else None}
    for name, scores in expected.items():
        if (name == "search" and task.temperature is None) or scores is None:
            assert f"{name}/threshold" not in metrics
            continue
        false = []
        for text in readable:
            candidates = [image for image in readable if not evalset.is_true[text, image]]
            if task.temperature is not None:
                candidates = sorted(candidates, key=lambda image: -itc[text, image])[: presence.OTHERS]
                false.append(max(scores[text, image] for image in candidates))
        true = scores[readable, readable]
        least = metrics[f"{name}/threshold"]
        assert metrics[f"{name}/present@best"] == pytest.approx(100 * (true >= least).mean())
        if false:
            assert least == pytest.approx(best_least(Scores(true, np.array(false))), abs=2e-3)
            assert metrics[f"{name}/absent@best"] == pytest.approx(100 * (np.array(false) >= least).mean())
    assert (metrics["search/fewest_words"], metrics["search/most_words"]) == (2, 3)


def test_a_checkpoint_that_cannot_tell_queries_apart_is_not_asked_of_captions(monkeypatch):
    sets = presence_sets([ScenesSource("val", COUNT, image_size=64)], context())
    asked = []

    def scores(task, evalset, options):
        asked.append(len(evalset.texts.texts[0]))
        true = np.arange(10.0)
        return {"search": Scores(true, true if evalset is sets[0] else true - 20)}

    monkeypatch.setattr(presence, "_scores", scores)
    metrics = presence_metrics(make_task(), sets, OPTIONS)
    assert metrics["search/threshold"] == pytest.approx(-5.5)
    assert metrics["search/fewest_words"] == min(len(words_of(text)) for text in sets[1].texts.texts)
    only_queries = presence_metrics(make_task(), sets[:1], OPTIONS)
    assert only_queries == {"search/present@best": 100, "search/absent@best": 100}


def test_only_validation_in_training_chooses_thresholds():
    source = ScenesSource("val", COUNT, image_size=64)
    asked = RetrievalEvaluation([source], context(), EvaluationOptions()).measure(make_task(), OPTIONS)
    assert not any(name.startswith(("search/", "match/")) for name in asked.metrics)
    chosen = RetrievalEvaluation([source], context(), EvaluationOptions(calibrate=True)).measure(make_task(), OPTIONS)
    assert {"itc/ir@1", "search/present@best", "match/absent@best"} <= chosen.metrics.keys()


@pytest.mark.parametrize("task", ["coarse", "retrieval"])
def test_what_validation_chose_is_lost_on_the_way_to_the_model(task):
    declaration = declared(task)
    settings = declaration.settings(name=task, search_threshold=7.0)
    metrics = {"match/threshold": -0.25, "search/threshold": 9.5, "search/fewest_words": 2, "search/most_words": 10}
    values = declaration.calibrated_values(settings, metrics)
    assert values == {"match_threshold": -0.25, "fewest_words": 2, "most_words": 10}  # one is given by the recipe
    config = CheckpointConfig(SMALL, dataclasses.replace(settings, **values), LENGTH, None, "builtin")
    read = CheckpointConfig.from_json(config.to_json())
    made = declaration.load_module().from_context(TaskContext(read.task, SMALL, load_tokenizer("builtin"), LENGTH))
    assert made.match_threshold == (-0.25, 2, 10)
    assert made.search_threshold.least == 7
    assert made.match_threshold.is_for("two words")
    assert not made.match_threshold.is_for("one")
    assert not made.match_threshold.is_for("word " * 11)


def test_two_ranks_choose_another_threshold_than_one(task, two_ranks):
    alone = measure_presence(task)
    assert "search/present@best" in alone
    for saved in two_ranks.ranks:
        assert saved["presence"] == pytest.approx(alone, abs=2e-3)
