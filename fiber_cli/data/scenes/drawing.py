"""The pictures of the built-in scenes."""

import math
import random

import numpy as np
from PIL import Image, ImageDraw

from fiber_cli.data.scenes.layout import TONES, Point, Rgb, Scene, SceneObject

_SUPERSAMPLE = 2


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, image_size x image_size, the same for the same scene on every call.

    Behind the objects lie a faint gradient and faint marks that no text speaks of; fine grain lies over all.
    """
    rng = random.Random(f"{scene.key}/canvas")
    side = scene.image_size * _SUPERSAMPLE
    canvas = _background(rng, TONES[scene.tone], side)
    noise = np.frombuffer(rng.randbytes(scene.image_size**2), np.uint8)
    for thing in scene.objects:
        _draw_object(canvas, thing)
    smooth = np.asarray(canvas.reduce(_SUPERSAMPLE), np.int16)
    grain = noise.reshape(scene.image_size, -1, 1) % 13
    pixels = smooth + grain.astype(np.int16) - 6
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _background(rng: random.Random, tone: tuple[int, int], side: int) -> Image.Image:
    """A soft gradient between four tints of one grey level, with faint strokes and blots."""
    level = rng.uniform(*tone)
    corners = Image.new("RGB", (2, 2))
    corners.putdata([_tint(rng, level, 14) for _ in range(4)])
    canvas = corners.resize((side, side), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.randint(5, 12)):
        x = rng.uniform(0, side)
        y = rng.uniform(0, side)
        reach = rng.uniform(0.03, 0.12) * side
        if rng.random() < 0.5:
            radius = reach / 3
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_tint(rng, level, 26))
        else:
            end_x = x + rng.uniform(-reach, reach) * 2
            end_y = y + rng.uniform(-reach, reach) * 2
            pen.line(((x, y), (end_x, end_y)), fill=_tint(rng, level, 26), width=max(1, round(side * 0.012)))
    return canvas


def _tint(rng: random.Random, level: float, spread: float) -> Rgb:
    """A grey level with a cast of colour."""
    red, green, blue = (round(level + rng.uniform(-spread, spread)) for _ in range(3))
    return red, green, blue


def _draw_object(canvas: Image.Image, thing: SceneObject) -> None:
    """The object with its outline, on a canvas of `_SUPERSAMPLE` times the scene's size."""
    side = canvas.width
    left, top, right, bottom = (round(edge * _SUPERSAMPLE) for edge in thing.box)
    mask = Image.new("L", (right - left + 1, bottom - top + 1))
    stencil = ImageDraw.Draw(mask)
    for polygon, fill in zip(thing.polygons, (255, 0), strict=False):  # the outline, and the hole that only rings have
        stencil.polygon(_scaled(polygon, left, top), fill=fill)
    canvas.paste(_fabric(thing, mask.size, side), (left, top), mask)
    pen = ImageDraw.Draw(canvas)
    for polygon in thing.polygons:
        points = _scaled(polygon)
        closed = [*points, *points[:2]]
        pen.line(closed, fill=_darker(thing.rgb, 0.3), width=max(1, round(side * 0.008)))


def _scaled(polygon: tuple[Point, ...], left: int = 0, top: int = 0) -> list[Point]:
    """The polygon in pixels of the canvas, from a corner of it on."""
    return [(x * _SUPERSAMPLE - left, y * _SUPERSAMPLE - top) for x, y in polygon]


def _darker(colour: Rgb, factor: float) -> Rgb:
    red, green, blue = colour
    return round(red * factor), round(green * factor), round(blue * factor)


def _fabric(thing: SceneObject, size: tuple[int, int], side: int) -> Image.Image:
    """The object's fill: its colour, with stripes or dots in a much darker shade of it."""
    fabric = Image.new("RGB", size, thing.rgb)
    dark = _darker(thing.rgb, 0.52)
    if thing.texture == "striped":
        _draw_stripes(fabric, dark, side)
    elif thing.texture == "dotted":
        _draw_dots(fabric, dark, side)
    return fabric


def _draw_stripes(fabric: Image.Image, colour: Rgb, side: int) -> None:
    pen = ImageDraw.Draw(fabric)
    width, height = fabric.size
    pitch = side * 0.075
    for step in range(math.ceil((width + height) / pitch)):
        x = (step + 0.5) * pitch
        pen.line(((x, 0), (x - height, height)), fill=colour, width=round(pitch * 0.4))


def _draw_dots(fabric: Image.Image, colour: Rgb, side: int) -> None:
    pen = ImageDraw.Draw(fabric)
    width, height = fabric.size
    pitch = side * 0.072
    radius = side * 0.021
    reach = math.ceil(max(width, height) / 2 / pitch / 0.87)
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            x = width / 2 + (column + 0.5 * (row % 2)) * pitch
            y = height / 2 + row * pitch * 0.87
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
