"""Short texts that people search with, read by the independent reader."""

import re

from scene_reading import NUMBERS, RELATION, attributes, having, lies, relation_of

from fiber_cli.data.scenes.queries import coloured_shape_queries, fits, queries


def is_true(text: str, one) -> bool:
    """Whether a query is true of a scene, generously: without margins."""
    related = re.fullmatch(f"(.*?) {RELATION} (.*)", text)
    if related:
        pairs = [(i, j) for i in having(one, related[1]) for j in having(one, related[3])]
        return any(i != j and lies(one, relation_of(related[2]), i, j) for i, j in pairs)
    first, *second = text.split(" and ")
    number, _, rest = first.partition(" ")
    if number in NUMBERS:
        return len(having(one, rest)) == NUMBERS[number]
    objects = having(one, first)
    if not second:
        return bool(objects)
    return any(i != j for i in objects for j in having(one, second[0]))


def test_a_query_is_not_true_of_its_scene(some_scenes):
    for one in some_scenes:
        for query in queries(one):
            assert is_true(query.text, one), query
            assert fits(query, one), query


def test_a_scene_that_a_query_does_not_fit_is_said_to_fit(some_scenes):
    asked = [query for one in some_scenes[:30] for query in queries(one)]
    differing = 0
    for query in asked:
        for one in some_scenes[:60]:
            assert is_true(query.text, one) or not fits(query, one), query
            # What lies within the margins is not asked for.
            differing += is_true(query.text, one) and not fits(query, one)
            assert query.relation or is_true(query.text, one) == fits(query, one), query
    assert differing < 0.02 * 60 * len(asked)


def test_queries_are_all_of_one_length(some_scenes):
    lengths = {len(query.text.split()) for one in some_scenes for query in queries(one)}
    assert lengths >= set(range(1, 9))
    assert max(lengths) < 16


def test_queries_of_a_scene_come_twice(some_scenes):
    for one in some_scenes:
        texts = [query.text for query in queries(one)]
        assert len(set(texts)) == len(texts) >= 3


def test_queries_for_coloured_shapes_leave_one_out_that_is_there(some_scenes):
    for one in some_scenes[:40]:
        fitting = {query.text for query in coloured_shape_queries(one, "") if fits(query, one)}
        assert {tuple(attributes(text).values()) for text in fitting} == {
            (thing.colour, thing.shape) for thing in one.objects
        }
