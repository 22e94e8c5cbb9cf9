"""The categories of detection."""

from collections import Counter

from scene_reading import attributes, having

from fiber_cli.data.scenes.categories import categories, category_boxes
from fiber_cli.data.scenes.vocabulary import HELD_OUT


def test_boxes_have_the_category_of_their_object(some_scenes):
    for one in some_scenes:
        named = category_boxes(one)
        assert [box for _, box in named] == [thing.box for thing in one.objects]
        for (name, _), thing in zip(named, one.objects, strict=True):
            assert name in categories("coloured_shapes", "val")
            assert attributes(name) == {"colour": thing.colour, "shape": thing.shape}


def test_coloured_shapes_are_not_all_pairs_that_a_split_shows():
    names = categories("coloured_shapes", "val")
    everything = categories("coloured_shapes", "novel")
    assert len(set(names)) == len(names) == 56
    assert len(set(everything)) == len(everything) == 64
    assert {tuple(attributes(name).values()) for name in set(everything) - set(names)} == HELD_OUT
    assert categories("coloured_shapes", "train") == names


def test_a_name_of_what_is_held_out_is_asked_of_other_splits():
    left_out = set(categories("all_levels", "novel")) - set(categories("all_levels", "train"))
    assert {tuple(attributes(name).values()) for name in left_out} == HELD_OUT
    assert {"purple crescent", "violet moon"} & left_out == set() or {"purple crescent", "violet moon"} <= left_out


def test_an_object_lacks_one_of_its_names_or_has_one_too_many(some_scenes):
    for one in some_scenes[:40]:
        objects_of: dict[str, list[int]] = {}
        boxes = [thing.box for thing in one.objects]
        for name, box in category_boxes(one, "all_levels"):
            objects_of.setdefault(name, []).append(boxes.index(box))
        for name in categories("all_levels", "val"):
            assert objects_of.get(name, []) == having(one, name), name


def test_names_of_all_levels_come_twice():
    assert set(Counter(categories("all_levels", "novel")).values()) == {1}


def test_names_as_people_type_them_are_of_other_objects(some_scenes):
    names = categories("as_typed", "val")
    assert {"star", "a star", "stars", "an orange shape", "orange shapes", "red crosses", "boxes"} <= set(names)
    assert set(names).isdisjoint(set(categories("as_typed", "novel")) - set(names))
    for one in some_scenes[:20]:
        bare = set(category_boxes(one, "all_levels"))
        typed = category_boxes(one, "as_typed")
        assert {(name, box) for name, box in typed if (name, box) in bare} == bare
        assert {name for name, _ in typed} <= set(names)
        assert len(set(typed)) == 3 * len(bare)
