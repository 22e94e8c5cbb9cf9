"""The words of names of categories."""

import pytest

from fiber_cli.data.category_names import same_words


@pytest.mark.parametrize(
    ("name", "other", "expected"),
    [
        ("hot_dog", "hot dog", True),
        ("bow_(weapon)", "bow", True),
        ("Traffic  Light ", "traffic_light", True),
        ("cat", "dog", False),
        ("hotdog", "hot dog", False),
    ],
)
def test_names_are_the_same_words(name, other, expected):
    assert same_words(name, other) is expected
