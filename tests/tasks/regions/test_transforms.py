"""Resizing, mirroring and the exchange of sides, against stored results of the published transforms."""

import numpy as np
import torch
from PIL import Image

from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.regions.transforms import RegionTransform, resized, swap_sides


def test_sizes_follow_the_published_rule(cases):
    for case in cases["resize_rule_800_1333"]:
        width, height = case["wh"]
        assert list(resized(height, width, 800, 1333)) == case["new_hw"], case
    case = cases["resize_rule_train_multi"]
    width, height = case["wh"]
    assert set(map(tuple, case["new_hw_sequence"])) <= {
        resized(height, width, short) for short in (480, 560, 640, 720, 800)
    }
    assert resized(1, 3000, 800) == (1, 3000)


def test_the_stored_picture_is_resized_and_mirrored_as_published(cases):
    case = cases["transform_example"]
    image = Image.fromarray(np.array(case["image_uint8_hwc_rgb"], np.uint8))
    short, longest = case["resize"]
    boxes = np.array(case["boxes_in"], np.float32)
    pixels, boxes, mirrored = RegionTransform((short,), longest, flip=1)(image, boxes, np.random.default_rng(0))
    assert mirrored
    assert [pixels.shape[2], pixels.shape[1]] == case["out_wh"]
    np.testing.assert_allclose(boxes, case["boxes_out"])
    published = torch.tensor(case["out_chw"]).flip(0)  # BGR
    torch.testing.assert_close(normalize(pixels), published, atol=2e-4, rtol=0)


def test_left_and_right_are_exchanged_with_their_spans():
    text = "Left of the leftmost right-hand shoe, RIGHT there: leftovers, a bright copyright"
    words = ("leftmost", "shoe", "RIGHT", "leftovers")
    spans = [[(text.index(word), text.index(word) + len(word)) for word in words]]
    swapped, moved = swap_sides(text, spans)
    assert swapped == "Right of the rightmost left-hand shoe, LEFT there: leftovers, a bright copyright"
    assert [swapped[a:b] for a, b in moved[0]] == ["rightmost", "shoe", "LEFT", "leftovers"]
    assert swap_sides(swapped, moved) == (text, spans)


def test_a_line_of_pixels_does_not_grow_without_bound():
    pixels, _, _ = RegionTransform((800,), 1333, 0)(Image.new("RGB", (5000, 1)), np.empty((0, 4)))
    assert pixels.shape == (3, 1, 1333)
