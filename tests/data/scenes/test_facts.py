"""What is so in a scene, held against the boxes and attributes themselves."""

import random
from itertools import permutations

from scene_reading import having, lies

from fiber_cli.data.scenes.facts import (
    coloured_shapes,
    count_values,
    definite,
    descriptions,
    distinguishing,
    looks,
    position,
    related,
    values_in,
)
from fiber_cli.data.scenes.vocabulary import OPPOSITE, VALUES


def test_relations_keep_a_margin_and_exclude_their_opposite(some_scenes):
    unsaid = 0
    for one in some_scenes:
        for i, j in permutations(range(len(one.objects)), 2):
            for relation in OPPOSITE:
                said = related(one, relation, i, j)
                denied = related(one, OPPOSITE[relation], i, j)
                assert not (said and denied)
                assert said == related(one, OPPOSITE[relation], j, i)
                assert lies(one, relation, i, j) or not said
                unsaid += not said and not denied
    assert unsaid > 0


def test_positions_are_those_of_the_middles(some_scenes):
    for one in some_scenes[:50]:
        for i, thing in enumerate(one.objects):
            x, y = (middle / one.image_size for middle in thing.centre)
            down, across = position(one, i)
            assert across == ("left" if x < 0.4 else "right" if x > 0.6 else "")
            assert down == ("top" if y < 0.4 else "bottom" if y > 0.6 else "")


def test_counts_are_of_all_scenes_together(some_scenes):
    first, second = some_scenes[:2]
    counts = count_values([first, second], "colour")
    assert tuple(counts) == VALUES["colour"]
    assert sum(counts.values()) == len(first.objects) + len(second.objects)
    for colour, count in counts.items():
        assert count == len(having(first, colour)) + len(having(second, colour))
    present = {colour for colour, count in counts.items() if count}
    assert present == values_in(first, "colour") | values_in(second, "colour")


def test_absent_looks_resemble_present_ones(some_scenes):
    for one in some_scenes[:50]:
        present, absent = coloured_shapes(one)
        assert {(look["colour"], look["shape"]) for look in present} == looks(one)
        for look in absent:
            assert not having(one, f"{look['colour']} {look['shape']}")
            assert having(one, look["colour"]) or having(one, look["shape"])


def test_descriptions_fit_the_objects_that_they_name(some_scenes):
    for one in some_scenes[:50]:
        for i in range(len(one.objects)):
            found = descriptions(one, i)
            assert len(found) == 15
            for attributes, objects in found:
                assert objects == set(having(one, " ".join(attributes.values())))
                assert i in objects
            without = descriptions(one, i, "colour")
            assert len(without) == 7
            assert not any("colour" in attributes for attributes, _ in without)


def test_definite_phrases_fit_one_object(some_scenes):
    rng = random.Random(0)
    for one in some_scenes[:50]:
        for i, thing in enumerate(one.objects):
            assert having(one, definite(rng, one, i)) == [i]
            others = distinguishing(rng, one, i, "colour")
            if others is None:
                shared = {**thing.attributes, "colour": ""}
                assert [{**other.attributes, "colour": ""} for other in one.objects].count(shared) > 1
            else:
                assert having(one, " ".join(others.values())) == [i]
