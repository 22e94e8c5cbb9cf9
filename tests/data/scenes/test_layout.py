"""The built-in scenes as functions of their numbers."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scene_reading import values_of

from fiber_cli.data.scenes.facts import looks
from fiber_cli.data.scenes.layout import COLOURS, SIZES, check_scenes, scene
from fiber_cli.data.scenes.shapes import SHAPES
from fiber_cli.data.scenes.vocabulary import HELD_OUT, VALUES
from fiber_cli.errors import UserError


def test_a_scene_is_made_again_and_scales(some_scenes):
    scene.cache_clear()
    assert scene(0, "val", 3) == some_scenes[3]
    big = scene(0, "val", 3, 192)
    assert big.image_size == 192
    for small_object, big_object in zip(some_scenes[3].objects, big.objects, strict=True):
        assert small_object.attributes == big_object.attributes
        assert np.allclose(np.multiply(small_object.box, 2), big_object.box)


def test_splits_and_seeds_share_no_scene():
    streams = [(0, "train"), (0, "val"), (0, "test"), (0, "novel"), (1, "train")]
    boxes = [thing.box for seed, split in streams for i in range(300) for thing in scene(seed, split, i).objects]
    assert len(set(boxes)) == len(boxes)


def test_every_value_of_an_attribute_is_as_frequent(many_scenes):
    objects = [thing for one in many_scenes for thing in one.objects]
    for kind in ("size", "texture", "colour", "shape"):
        counts = Counter(getattr(thing, kind) for thing in objects)
        assert set(counts) == values_of(kind) == set(VALUES[kind])
        assert max(counts.values()) < 1.3 * min(counts.values())
    assert {len(one.objects) for one in many_scenes} == {2, 3, 4}


def test_objects_differ_lie_inside_and_hardly_overlap(some_scenes):
    for one in some_scenes:
        for thing in one.objects:
            left, top, right, bottom = thing.box
            assert 0 <= left < right <= one.image_size
            assert 0 <= top < bottom <= one.image_size
            assert thing.centre == ((left + right) / 2, (top + bottom) / 2)
        for a, b in combinations(one.objects, 2):
            assert a.attributes != b.attributes
            distance = math.dist(a.centre, b.centre)
            assert distance > 0.15 * one.image_size


def test_objects_of_alike_scenes_differ_in_much():
    single = 0
    objects = 0
    for i in range(200):
        seen = [set(thing.attributes.items()) for thing in scene(0, "val", i, alike=True).objects]
        single += sum(any(len(look & earlier) == 3 for earlier in seen[:n]) for n, look in enumerate(seen) if n)
        objects += len(seen) - 1
    assert single > 0.7 * objects
    assert scene(0, "val", 3, alike=True).key != scene(0, "val", 3).key


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("alike", [False, True])
def test_a_colour_with_a_shape_of_the_novel_split_is_in_another(split, alike):
    shown = {look for i in range(400) for look in looks(scene(0, split, i, alike=alike))}
    assert not shown & HELD_OUT
    assert len(shown) == 56


@pytest.mark.parametrize("alike", [False, True])
def test_a_novel_scene_shows_nothing_new(alike):
    novel = [looks(scene(0, "novel", i, alike=alike)) for i in range(400)]
    assert all(shown & HELD_OUT for shown in novel)
    assert set.union(*novel) > HELD_OUT


def test_what_is_held_out_takes_a_colour_or_a_shape_away():
    assert len(HELD_OUT) == 8
    assert {colour for colour, _ in HELD_OUT} == set(VALUES["colour"])
    assert {shape for _, shape in HELD_OUT} == set(VALUES["shape"])


@pytest.mark.parametrize("objects", [(1, 1), (1, 2), (2, 2), (4, 4), (1, 4)])
@pytest.mark.parametrize("split", ["train", "novel"])
def test_a_scene_has_more_or_fewer_objects_than_asked(objects, split):
    scenes = [scene(0, split, i, objects=objects) for i in range(100)]
    assert {len(one.objects) for one in scenes} == set(range(objects[0], objects[1] + 1))
    assert scenes[0].key != scene(0, split, 0).key


@pytest.mark.parametrize("objects", [(0, 2), (3, 2), (2, 5)])
def test_numbers_of_objects_that_no_scene_has_are_told(objects):
    with pytest.raises(UserError, match=r"objects is .*; give the fewest and the most objects of a scene, from 1 to 4"):
        scene(0, "val", 0, objects=objects)


@pytest.mark.parametrize("objects", [(1, 1), (2, 4)])
def test_siblings_differ_in_more_than_one_attribute_of_one_object(objects):
    for first in range(0, 60, 4):
        looks_of = []
        for i in range(first, first + 4):
            shown = scene(0, "train", i, objects=objects, siblings=4).objects
            looks_of.append(Counter(tuple(thing.attributes.items()) for thing in shown))
        for other in looks_of[1:]:
            lost, gained = looks_of[0] - other, other - looks_of[0]
            assert lost.total() == gained.total() == 1
            (before,), (after,) = lost, gained
            assert len(set(before) - set(after)) == 1


def test_siblings_are_of_one_family_of_all():
    families = [scene(0, "train", i, siblings=4) for i in range(0, 400, 4)]
    assert len({tuple(tuple(thing.attributes.items()) for thing in one.objects) for one in families}) > 95
    assert scene(0, "train", 5, siblings=4).key != scene(0, "train", 5).key


@pytest.mark.parametrize("siblings", [0, -1, 1.5])
def test_families_that_there_are_none_of_are_told(siblings):
    with pytest.raises(UserError, match=r"siblings is .*; give the scenes of a family"):
        scene(0, "val", 0, siblings=siblings)


def test_the_tables_know_every_value():
    assert tuple(COLOURS) == VALUES["colour"]
    assert tuple(SHAPES) == VALUES["shape"]
    assert set(SIZES) == set(VALUES["size"])


@pytest.mark.parametrize(
    ("split", "seed", "size", "message"),
    [
        ("dev", 0, 96, "no split 'dev'; take one of train, val, test, novel"),
        ("val", -1, 96, "seed is -1"),
        ("val", 0.5, 96, r"seed is 0\.5"),
        ("val", 0, 8, "image_size is 8; give a number of pixels from 32"),
        ("val", 0, "96", "image_size is '96'"),
    ],
)
def test_what_there_is_no_scene_for(split, seed, size, message):
    with pytest.raises(UserError, match=message):
        check_scenes(split, seed, size)
    with pytest.raises(UserError, match=message):
        scene(seed, split, 0, size)


def test_a_negative_index_is_told():
    with pytest.raises(UserError, match="scene index -1 is negative"):
        scene(0, "val", -1)
