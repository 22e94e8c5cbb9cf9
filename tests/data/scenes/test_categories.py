"""The categories of detection."""

from scene_reading import attributes

from fiber_cli.data.scenes.categories import CATEGORIES, category_boxes


def test_boxes_have_the_category_of_their_object(some_scenes):
    for one in some_scenes:
        categories = category_boxes(one)
        assert [box for _, box in categories] == [thing.box for thing in one.objects]
        for (name, _), thing in zip(categories, one.objects, strict=True):
            assert name in CATEGORIES
            assert attributes(name) == {"colour": thing.colour, "shape": thing.shape}


def test_categories_are_all_pairs_of_colour_and_shape():
    assert len(set(CATEGORIES)) == len(CATEGORIES) == 64
