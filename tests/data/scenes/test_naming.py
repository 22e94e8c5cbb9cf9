"""What objects can be called."""

import pytest
from scene_reading import MEANING, attributes

from fiber_cli.data.scenes.naming import LEVELS, NAMES, level_of, names_of, names_of_level


@pytest.mark.parametrize("level", LEVELS)
def test_a_name_speaks_of_other_attributes_than_its_level(level):
    for name in names_of_level(level):
        assert set(attributes(name)) == set(LEVELS[level])
        assert level_of(name) == level


def test_a_word_for_a_value_is_in_no_name():
    words = set(" ".join(NAMES).split())
    assert words >= MEANING.keys()


def test_an_object_is_called_by_what_it_is_not(some_scenes):
    for one in some_scenes[:40]:
        for thing in one.objects:
            for name in names_of(thing):
                assert attributes(name).items() <= thing.attributes.items()
            assert len(set(names_of(thing))) == len(names_of(thing))
