"""The closed vocabulary of the built-in scenes against the words of texts that are drawn."""

from collections.abc import Callable, Iterator

import pytest

from fiber_cli.data.scenes.captions import captions
from fiber_cli.data.scenes.expressions import expressions
from fiber_cli.data.scenes.layout import Scene, scene
from fiber_cli.data.scenes.queries import counted_names, full_names, queries
from fiber_cli.data.scenes.questions import questions
from fiber_cli.data.scenes.statements import pair_statements, statements
from fiber_cli.data.scenes.words import scene_words
from fiber_cli.data.words import words_in

SAID: dict[str, Callable[[Scene], Iterator[str]]] = {
    "captions": lambda one: (caption.text for caption in captions(one)),
    "queries": lambda one: (query.text for query in queries(one)),
    "full_names": full_names,
    "counted_names": counted_names,
    "expressions": lambda one: (expression.text for expression in expressions(one)),
    "questions": lambda one: (question.text for question in questions(one)),
    "statements": lambda one: (statement.text for statement in statements(one)),
    "pair_statements": lambda one: (statement.text for statement in pair_statements(one, _neighbour(one))),
}


def _neighbour(one: Scene) -> Scene:
    split, seed, number = one.key.split("-")[:3]
    count = len(one.objects)
    return scene(int(seed), split, int(number) + 1, 32, one.key.endswith("alike"), (count, count))


def _texts(kind: str, objects: tuple[int, int], count: int) -> Iterator[str]:
    for split, is_alike in (("train", False), ("novel", True)):
        for number in range(count):
            yield from SAID[kind](scene(0, split, number, 32, is_alike, objects))


@pytest.mark.parametrize("objects", [(1, 1), (2, 2), (3, 3), (4, 4)])
@pytest.mark.parametrize("kind", SAID)
def test_a_word_is_in_the_vocabulary_that_no_text_has_or_the_other_way_round(kind, objects):
    drawn = words_in(_texts(kind, objects, 600))
    assert drawn == scene_words(kind, objects)


def test_a_range_of_numbers_has_not_the_words_of_each_number():
    assert scene_words("captions", (2, 3)) == scene_words("captions", (2, 2)) | scene_words("captions", (3, 3))
    assert "four" not in scene_words("captions", (2, 3))
    assert "shape" not in scene_words("captions", (2, 4))  # there are always several
