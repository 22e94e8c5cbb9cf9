"""The words of the scenes, read by the independent reader."""

import random

from scene_reading import MEANING, attributes, values_of

from fiber_cli.data.scenes.vocabulary import (
    ATTRIBUTES,
    EXTREME,
    OPPOSITE,
    RELATIONS,
    SYNONYMS,
    VALUES,
    counted,
    listing,
    noun_phrase,
    plural,
    word,
)


def test_every_value_and_synonym_means_what_the_reader_takes_it_for():
    for attribute in ATTRIBUTES:
        assert set(VALUES[attribute]) == values_of(attribute)
    for value, synonym in SYNONYMS.items():
        assert MEANING[synonym] == MEANING[value]


def test_phrases_keep_the_order_of_english_and_the_article():
    rng = random.Random(0)
    full = {"shape": "triangle", "colour": "orange", "texture": "striped", "size": "small"}
    texts = {noun_phrase(rng, full, "a") for _ in range(40)}
    assert texts == {"a small striped orange triangle", "a little striped orange triangle"}
    assert noun_phrase(rng, {"colour": "orange", "shape": "heart"}, "a") == "an orange heart"
    assert noun_phrase(rng, {"colour": "orange", "shape": "heart"}, "the") == "the orange heart"
    things = {noun_phrase(rng, {"texture": "striped"}) for _ in range(40)}
    assert things == {"striped shape", "striped object", "striped figure"}


def test_plurals_are_read_as_their_value():
    rng = random.Random(0)
    for attribute in ATTRIBUTES:
        for value in VALUES[attribute]:
            assert attributes(plural(rng, attribute, value)) == {attribute: value}
    assert plural(rng, "shape", "cross") == "crosses"


def test_a_word_is_the_value_or_its_synonym_as_often():
    rng = random.Random(0)
    words = [word(rng, "ring") for _ in range(400)]
    assert set(words) == {"ring", "hoop"}
    assert 140 < words.count("ring") < 260
    assert word(rng, "star") == "star"


def test_listings_end_with_and():
    assert listing(["a", "b"]) == "a and b"
    assert listing(["a", "b", "c"]) == "a, b and c"


def test_every_relation_has_an_opposite_and_an_extreme():
    assert set(RELATIONS) == set(OPPOSITE) == set(EXTREME)
    assert all(OPPOSITE[OPPOSITE[relation]] == relation for relation in RELATIONS)


def test_one_thing_is_counted_in_the_plural():
    assert [counted(count, "shape") for count in range(3)] == ["no shapes", "one shape", "two shapes"]
    assert counted(4, "red cross") == "four red crosses"
