"""What sources have in common: limits, orders, what tasks require of them, and what cannot be read."""

import numpy as np
import pytest
from colour_images import ColourImages

from fiber_cli.data.records import NamedBoxes, Phrase, PhraseBoxes
from fiber_cli.data.source import (
    BadSample,
    CaptionSource,
    CategorySource,
    PhraseSource,
    QuestionSource,
    StatementSource,
    phrases_of_spans,
    readable_captions,
    require,
    sample_id,
    some_captions,
    usable,
)
from fiber_cli.data.sources.scenes import SceneDetection, ScenesSource
from fiber_cli.errors import UserError


def test_the_first_samples_leave_the_source_as_it_is():
    source = ColourImages(5)
    head = source.first(2)
    assert (len(head), len(source)) == (2, 5)
    assert sorted(head.order(np.random.default_rng(0))) == [0, 1]
    assert sample_id(head, 1) == sample_id(source, 1) == "colours/1"
    assert len(source.first(99)) == 5
    assert len(source.first(0)) == 0


def test_an_order_is_drawn_by_the_generator_alone():
    source = ColourImages(50)
    first, again, other = (source.order(np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == list(range(50))


def test_a_source_that_does_not_yield_what_is_needed_is_told():
    colours, scenes = ColourImages(2), ScenesSource("val", 2)
    assert require([colours, scenes], CaptionSource) == [colours, scenes]
    assert require([], QuestionSource) == []
    for kind, words in (
        (QuestionSource, "questions"),
        (StatementSource, "statements"),
        (CategorySource, "boxes with names"),
        (PhraseSource, "phrases with boxes"),
    ):
        with pytest.raises(UserError, match=f"colours has no {words}; name a source that has them"):
            require([colours], kind)
    with pytest.raises(UserError, match="evaluation: scene-detection-val-0 has no captions"):
        require([SceneDetection("val", 2)], CaptionSource, "evaluation")


def test_what_cannot_be_read_is_listed_and_the_rest_is_used():
    def read(number):
        if number % 2:
            raise BadSample(f"{number} is odd")
        return 10 * number

    assert usable([0, 1, 2, 3], read, str) == ([0, 2], [0, 20], [("1", "1 is odd"), ("3", "3 is odd")])


def test_captions_that_are_missing_or_unreadable():
    def captions(i):
        if i == 1:
            raise BadSample("unreadable text")
        return () if i == 2 else ("one", "two")

    source = ColourImages(3, captions=captions)
    assert some_captions(source, 0) == ("one", "two")
    assert [source.caption_count(i) for i in range(3)] == [2, 0, 0]
    assert readable_captions(source, 1) == ()
    with pytest.raises(BadSample, match="unreadable text"):
        some_captions(source, 1)
    with pytest.raises(BadSample, match="no caption"):
        some_captions(source, 2)


def test_what_a_source_of_captions_does_not_say_follows_from_its_key():
    source = ColourImages(3)
    assert source.image_id(2) == "2"
    assert source.domain(2) is None


BOXES = np.array([[0, 0, 4, 4], [1, 1, 5, 5], [2, 2, 6, 6]], np.float32)


def test_phrases_are_spans_with_the_boxes_that_have_them():
    regions = PhraseBoxes("a cat and two dogs", BOXES, [[(10, 18)], [(0, 5)], [(10, 18), (0, 5)]])
    first, second = phrases_of_spans(regions)
    assert (first.span, second.span) == ((0, 5), (10, 18))
    assert first.boxes.tolist() == BOXES[1:].tolist()
    assert second.boxes.tolist() == BOXES[[0, 2]].tolist()
    assert first.boxes.dtype == np.float32
    assert isinstance(first, Phrase)
    assert phrases_of_spans(PhraseBoxes("nothing", BOXES[:0], [])) == []


def test_boxes_of_categories_have_no_phrases():
    class Mixed(CategorySource, PhraseSource):
        total, key, image = ColourImages.total, ColourImages.key, ColourImages.image
        count = 2

        def regions(self, i):
            if i == 0:
                return NamedBoxes(BOXES[:1], np.array([3]))
            return PhraseBoxes("a cat", BOXES[:1], [[(0, 5)]])

    source = Mixed()
    text, (phrase,) = source.phrases(1)
    assert (text, phrase.span) == ("a cat", (0, 5))
    with pytest.raises(BadSample, match="has boxes of categories, but no caption with phrases"):
        source.phrases(0)
    assert (list(source.names), list(source.category_ids), source.image_id(1), source.truth()) == ([], [], 1, None)


def test_a_source_that_makes_its_questions_stays_whole():
    scenes = ScenesSource("val", 3)
    assert scenes.answerable(lambda question: False) is scenes
