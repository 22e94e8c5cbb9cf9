"""The built-in scenes as sources."""

import pickle
import re

import numpy as np
import pytest

from fiber_cli.data.records import NamedBoxes, PhraseBoxes
from fiber_cli.data.scenes.captions import captions
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import scene
from fiber_cli.data.scenes.questions import questions
from fiber_cli.data.scenes.statements import pair_statements, statements
from fiber_cli.data.source import CaptionSource, CategorySource, PhraseSource, QuestionSource, StatementSource
from fiber_cli.data.sources import source_format
from fiber_cli.data.sources.scenes import (
    SceneDetection,
    SceneGrounding,
    SceneReferring,
    ScenesSource,
)
from fiber_cli.errors import UserError


def test_samples_are_the_scenes_of_their_split():
    source = pickle.loads(pickle.dumps(ScenesSource("val", 20, seed=4, image_size=64)))
    assert source.name == "scenes-val-4"
    assert len(source) == 20
    assert len({source.key(i) for i in range(20)}) == 20
    seventh = scene(4, "val", 7, 64)
    assert source[7] == seventh
    assert source.captions(7) == tuple(caption.text for caption in captions(seventh))
    assert source.questions(7) == questions(seventh)
    assert source.image(7).tobytes() == draw(seventh).tobytes()
    assert source.image(7).size == (64, 64)
    assert sorted(source.order(np.random.default_rng(0))) == list(range(20))
    with pytest.raises(IndexError, match="scenes 0 to 19, not 20"):
        source.image(20)


def test_statements_are_about_a_scene_and_its_neighbour_or_about_one():
    pairs, single = ScenesSource("val", 5), ScenesSource("val", 5, pairs=False)
    first, last = pairs[0], pairs[4]
    assert pairs.images_each == 2
    assert pairs.statements(4) == pair_statements(last, first)
    assert [image.tobytes() for image in pairs.images(4)] == [draw(last).tobytes(), draw(first).tobytes()]
    assert single.images_each == 1
    assert single.statements(4) == statements(last)
    assert [image.tobytes() for image in single.images(4)] == [draw(last).tobytes()]


@pytest.mark.parametrize("wanted", [("position",), ("relation", "count")])
def test_questions_are_of_the_chosen_types_where_a_scene_has_one(wanted):
    chosen, everything = ScenesSource("val", 60, about=wanted), ScenesSource("val", 60)
    with_one = 0
    for i in range(60):
        expected = [question for question in everything.questions(i) if question.question_type in wanted]
        with_one += bool(expected)
        assert list(chosen.questions(i)) == (expected or list(everything.questions(i)))
    assert 10 < with_one < 60


@pytest.mark.parametrize(
    ("pairs", "wanted"), [(True, ("in_both",)), (True, ("count", "background")), (False, ("absence",))]
)
def test_statements_are_of_the_chosen_types_where_a_scene_has_one(pairs, wanted):
    chosen, everything = ScenesSource("val", 60, pairs=pairs, about=wanted), ScenesSource("val", 60, pairs=pairs)
    for i in range(60):
        made = everything.statements(i)
        expected = [statement for statement in made if statement.statement_type in wanted]
        assert list(chosen.statements(i)) == (expected or list(made))
    assert {statement.statement_type for i in range(60) for statement in chosen.statements(i)} >= set(wanted)


@pytest.mark.parametrize(
    "wrong",
    [{"split": "dev"}, {"count": 0}, {"count": 2.5}, {"seed": -1}, {"image_size": 8}, {"image_size": "96"}],
)
@pytest.mark.parametrize("kind", [ScenesSource, SceneDetection])
def test_what_there_is_no_scene_for_is_refused(wrong, kind):
    with pytest.raises(UserError, match=re.escape(repr(*wrong.values()))):
        kind(**({"split": "train", "count": 3} | wrong))


@pytest.mark.parametrize(
    ("kind", "yields"),
    [
        ("scenes", {CaptionSource, QuestionSource, StatementSource}),
        ("scene_detection", {CategorySource}),
        ("scene_grounding", {PhraseSource}),
        ("scene_referring", {PhraseSource}),
    ],
)
def test_a_kind_is_read_as_nothing_but_its_own(kind, yields):
    every = {CaptionSource, QuestionSource, StatementSource, CategorySource, PhraseSource}
    assert {record for record in every if source_format(kind).can_be_read_as(record)} == yields


def test_detection_names_every_object():
    source = SceneDetection("val", 12)
    assert source.name == "scene-detection-val-0"
    for i in range(12):
        regions = source.regions(i)
        assert isinstance(regions, NamedBoxes)
        assert regions.size == (96, 96)
        assert regions.boxes.tolist() == np.array([thing.box for thing in source[i].objects], np.float32).tolist()
        names = [source.names[label] for label in regions.labels]
        assert names == [f"{thing.colour} {thing.shape}" for thing in source[i].objects]
    assert list(source.category_ids) == list(range(56))
    assert source.truth() is None


def test_grounding_gives_each_object_the_phrases_that_name_it():
    source = SceneGrounding("val", 12)
    assert source.refers is False
    grouped = 0
    for i in range(12):
        regions = source.regions(i)
        assert isinstance(regions, PhraseBoxes)
        assert len(regions.boxes) == len(source[i].objects)
        assert regions.caption in {caption.text for caption in captions(source[i])}
        for spans, thing in zip(regions.spans, source[i].objects, strict=True):
            phrases = [regions.caption[start:end] for start, end in spans]
            colours = {thing.colour, "violet" if thing.colour == "purple" else thing.colour}
            assert sum(any(colour in phrase for colour in colours) for phrase in phrases) >= 1
            grouped += len(phrases) > 1
    assert grouped > 0  # "three shapes" is said of all of them


def test_referring_asks_for_one_box_by_the_whole_text():
    source = SceneReferring("val", 12)
    assert source.refers is True
    for i in range(12):
        regions = source.regions(i)
        assert regions.spans == [[(0, len(regions.caption))]]
        boxes = {tuple(np.float32(thing.box)) for thing in source[i].objects}
        assert tuple(regions.boxes[0]) in boxes
        text, phrases = source.phrases(i)
        assert text == regions.caption
        assert phrases[0].boxes.tolist() == regions.boxes.tolist()


def test_siblings_are_apart_in_training():
    source = ScenesSource("train", 22, siblings=4)
    order = source.order(np.random.default_rng(0)).tolist()
    assert sorted(order) == list(range(22))
    starts = [order.index(first) for first in range(0, 22, 4)]
    for first, start in zip(range(0, 22, 4), starts, strict=True):
        family = list(range(first, min(first + 4, 22)))
        assert order[start : start + len(family)] == family
    assert starts != sorted(starts)


def test_unknown_types_of_questions_are_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"about names 'where'.*position"):
        ScenesSource("val", 5, about=("where",))
