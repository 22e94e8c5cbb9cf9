"""The claims of captions of drawn scenes, as the benchmark of captions reads them."""

import numpy as np
import pytest

from benchmarks.scene_claims import Claim, count_true, read
from fiber_cli.data.scenes.captions import captions
from fiber_cli.data.scenes.layout import scene


def test_a_true_claim_is_called_false():
    for number in range(150):
        one = scene(0, "val", number)
        for caption in captions(one):
            made, true = count_true(caption.text, one)
            assert made == true >= 3, caption.text


def test_claims_about_another_scene_are_called_true():
    shares = []
    for number in range(150):
        for caption in captions(scene(0, "val", number)):
            made, true = count_true(caption.text, scene(0, "val", number + 500))
            shares.append(true / made)
    assert np.mean(shares) < 0.2


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("a red star", [Claim("object", (0,))]),
        (
            "a red star is left of an orange ring, on a dark background",
            [Claim("object", (0,)), Claim("object", (1,)), Claim("tone", value="dark"), Claim("left", (0, 1))],
        ),
        (
            "at the top left a big moon and in the middle a plain shape",
            [
                Claim("object", (0,)),
                Claim("object", (1,)),
                Claim("place", (0,), "top"),
                Claim("place", (0,), "left"),
                Claim("place", (1,), "middle"),
            ],
        ),
        (
            "from right to left there is a moon, a star and a box",
            [*(Claim("object", (number,)) for number in range(3)), Claim("right", (0, 1)), Claim("right", (1, 2))],
        ),
        ("two figures: star star star", [Claim("count", value="two")]),
        ("there there is is", []),
    ],
)
def test_what_is_claimed_is_overlooked(text, claims):
    assert read(text).claims == claims


def test_a_caption_with_one_wrong_word_is_true():
    one = scene(0, "val", 3)
    wrong = {"red", "orange", "yellow", "green", "blue", "pink", "white"} - {thing.colour for thing in one.objects}
    for caption in captions(one):
        for thing in one.objects:
            if f" {thing.colour} " in caption.text:
                made, true = count_true(caption.text.replace(f" {thing.colour} ", f" {min(wrong)} "), one)
                assert true < made
