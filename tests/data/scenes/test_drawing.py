"""The pictures of the built-in scenes, held against their objects."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
from PIL import ImageColor
from scene_reading import values_of

from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import scene


def changed(one, other) -> np.ndarray:
    """Where two drawings on the same background differ."""
    return (np.asarray(draw(one), int) != np.asarray(draw(other), int)).any(-1)


def test_a_scene_is_drawn_the_same_again_at_its_size(some_scenes):
    scene.cache_clear()
    assert draw(scene(0, "val", 3)).tobytes() == draw(some_scenes[3]).tobytes()
    picture = draw(scene(0, "val", 3, 192))
    assert picture.mode == "RGB"
    assert picture.size == (192, 192)


def test_boxes_fit_what_is_drawn_and_nothing_is_hidden(some_scenes):
    for one in some_scenes[:60]:
        empty = replace(one, objects=())
        for i, thing in enumerate(one.objects):
            alone = changed(replace(one, objects=(thing,)), empty)
            rows, columns = np.flatnonzero(alone.any(1)), np.flatnonzero(alone.any(0))
            drawn = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert np.abs(np.subtract(drawn, thing.box)).max() < 2
            others = replace(one, objects=one.objects[:i] + one.objects[i + 1 :])
            assert changed(one, others).sum() > 0.75 * alone.sum()


def test_colours_sizes_and_textures_are_what_they_are_called(many_scenes):
    colours = sorted(values_of("colour"))
    table = np.array([ImageColor.getrgb(name) for name in colours])
    roughness = defaultdict(list)
    misnamed = 0
    for one in many_scenes[:60]:
        for thing in one.objects:
            alone = replace(one, objects=(thing,))
            area = changed(alone, replace(one, objects=()))
            pixels = np.asarray(draw(alone), float)[area]
            brightness = pixels.sum(1)
            fill = np.median(pixels[brightness >= np.quantile(brightness, 0.75)], 0)
            nearest = colours[np.abs(table - fill).sum(1).argmin()]
            misnamed += nearest != thing.colour
            roughness[thing.texture].append((brightness < 0.7 * fill.sum()).mean())
            side = max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]) / one.image_size
            assert side < 0.3 if thing.size == "small" else side > 0.3
    # Of a small outline with stripes little is in the named colour.
    assert misnamed <= 3
    assert max(roughness["plain"]) < 0.45 < np.median(roughness["striped"] + roughness["dotted"])


def test_backgrounds_are_dark_or_light_as_the_scene_says(some_scenes):
    for one in some_scenes[:40]:
        level = np.asarray(draw(replace(one, objects=()))).mean()
        assert (level < 110) == (one.tone == "dark")
