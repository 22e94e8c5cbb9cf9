"""The categories of detection."""

from collections import Counter

from scene_reading import attributes, having

from fiber_cli.data.scenes.categories import CATEGORIES, LABELS, category_boxes


def test_boxes_have_the_category_of_their_object(some_scenes):
    for one in some_scenes:
        categories = category_boxes(one)
        assert [box for _, box in categories] == [thing.box for thing in one.objects]
        for (name, _), thing in zip(categories, one.objects, strict=True):
            assert name in CATEGORIES["coloured_shapes"]
            assert attributes(name) == {"colour": thing.colour, "shape": thing.shape}


def test_coloured_shapes_are_all_pairs_of_colour_and_shape():
    names = CATEGORIES["coloured_shapes"]
    assert len(set(names)) == len(names) == 64


def test_an_object_lacks_one_of_its_names_or_has_one_too_many(some_scenes):
    for one in some_scenes[:40]:
        objects_of: dict[str, list[int]] = {}
        boxes = [thing.box for thing in one.objects]
        for name, box in category_boxes(one, "all_levels"):
            objects_of.setdefault(name, []).append(boxes.index(box))
        for name in CATEGORIES["all_levels"]:
            assert objects_of.get(name, []) == having(one, name), name


def test_names_of_all_levels_come_twice_or_lack_a_number():
    names = CATEGORIES["all_levels"]
    assert set(Counter(names).values()) == {1}
    assert [LABELS["all_levels"][name] for name in names] == list(range(len(names)))
