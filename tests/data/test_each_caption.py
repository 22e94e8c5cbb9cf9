"""One entry per caption."""

import numpy as np
import pytest

from fiber_cli.data.each_caption import EachCaption
from fiber_cli.data.source import BadSample, CaptionSource


class Letters(CaptionSource):
    """A source without images: captions as given, in order of the numbers."""

    name = "letters"

    def __init__(self, captions):
        self._captions = captions

    def total(self):
        return len(self._captions)

    def order(self, rng):
        return np.arange(len(self))

    def key(self, i):
        return f"image {i}"

    def captions(self, i):
        if self._captions[i] is None:
            raise BadSample("unreadable")
        return self._captions[i]

    def image(self, i, at_least=0):
        raise BadSample("not there")


def test_each_caption_shows_every_pair_once():
    source = Letters([("a", "b", "c"), ("d",), (), None, ("e", "f")])
    each = EachCaption(source)
    assert len(each) == 3 + 1 + 1 + 1 + 2
    order = each.order(np.random.default_rng(0))
    assert sorted(order) == list(range(8))
    assert list(order) != list(range(8))
    pairs = []
    for i in range(8):
        try:
            pairs.append((each.key(i), each.captions(i)))
        except BadSample:
            pairs.append((each.key(i), "bad"))
    texts = [("a",), ("b",), ("c",), ("d",), (), "bad", ("e",), ("f",)]
    assert pairs == [(f"image {n}", text) for n, text in zip([0, 0, 0, 1, 2, 3, 4, 4], texts, strict=False)]
    single = EachCaption(Letters([("a",), ("b",)]))
    assert list(single.order(np.random.default_rng(0))) == [0, 1]  # the source's own order


def test_the_source_is_asked_for_the_image_of_a_pair():
    each = EachCaption(Letters([("a", "b"), ("c",)]))
    assert [each.image_id(i) for i in range(3)] == ["image 0", "image 0", "image 1"]
    assert [each.domain(i) for i in range(3)] == [None] * 3
    with pytest.raises(BadSample, match="not there"):
        each.image(2)
