"""Built-in scenes: drawn pictures of which everything is known, so that every task has data to start with.

`scene` is a pure function of (seed, split, index); the same scene can be drawn at any size. What is said of
it (captions, questions, statements, referring expressions) is made by `scene_text`.
"""

import cmath
import math
import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from fiber_cli.data.scenes import language as scene_text
from fiber_cli.data.source import Source
from fiber_cli.tasks.nlvr2.data import Statement
from fiber_cli.tasks.vqa.data import VqaQuestion
from fiber_cli.errors import UserError

SPLITS = ("train", "val", "test")
MIN_SIZE = 32

COLOURS = {
    "red": (216, 30, 38),
    "orange": (250, 132, 14),
    "yellow": (247, 222, 36),
    "green": (40, 160, 52),
    "blue": (32, 84, 222),
    "purple": (128, 44, 176),
    "pink": (250, 136, 190),
    "white": (250, 250, 250),
}
#: Diameter of the disc around an object, as a range of fractions of the image's side.
SIZES = {"small": (0.23, 0.27), "large": (0.38, 0.44)}
#: Range of the grey level of the background. Neither end is near to white or to an object's shade.
TONES = {"dark": (48, 78), "light": (158, 188)}

_SUPERSAMPLE = 2
_MAX_OVERLAP = 0.12
_MAX_TURN = math.radians(12)

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SceneObject:
    """One drawn object.

    box: xyxy in absolute pixels, around the whole outline, also where a nearer object hides a part of it.
    polygons: the outline in absolute pixels, and of rings the hole cut out of it.
    rgb: the fill as drawn, a variation of the named colour.
    """

    shape: str
    colour: str
    size: str
    texture: str
    box: Box
    polygons: tuple[tuple[Point, ...], ...]
    rgb: tuple[int, int, int]

    @property
    def centre(self) -> Point:
        """Middle of the box, in pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    key: names the scene whatever its image_size; tone: "dark" or "light" background;
    objects: two to four, no two alike in all four attributes, in drawing order (the nearest last).
    """

    key: str
    image_size: int
    tone: str
    objects: tuple[SceneObject, ...]


def _polar(*points: tuple[float, float]) -> tuple[complex, ...]:
    return tuple(cmath.rect(radius, math.radians(degrees - 90)) for radius, degrees in points)


def _disc(radius: float = 1.0) -> tuple[complex, ...]:
    return _polar(*((radius, degrees) for degrees in range(0, 360, 10)))


def _heart() -> tuple[complex, ...]:
    def point(t: float) -> complex:
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        return complex(16 * math.sin(t) ** 3, -y - 2.5) / 17

    return tuple(point(math.pi * step / 18) for step in range(36))


def _moon() -> tuple[complex, ...]:
    """A disc less a second disc of radius 0.8, shifted to the right by 0.5; they meet at x = 0.61."""
    outer, inner = math.acos(0.61), math.acos(0.11 / 0.8)
    rim = [cmath.rect(1, outer + (2 * math.pi - 2 * outer) * step / 24) for step in range(25)]
    bite = [0.5 + cmath.rect(0.8, inner + (2 * math.pi - 2 * inner) * step / 20) for step in range(19, 0, -1)]
    return tuple(point + 0.15 for point in rim + bite)


def _cross() -> tuple[complex, ...]:
    quarter = (complex(-0.34, -0.93), complex(0.34, -0.93), complex(0.34, -0.34))
    return tuple(point * turn for turn in (1, 1j, -1, -1j) for point in quarter)


#: Outline and, of the ring, hole of each shape as complex points (x + iy, y downwards); turned by up to `_MAX_TURN`
#: either way they stay inside [-1, 1] on both axes.
SHAPES: dict[str, tuple[tuple[complex, ...], ...]] = {
    "circle": (_disc(),),
    "square": (_polar((1.15, 45), (1.15, 135), (1.15, 225), (1.15, 315)),),
    "triangle": (tuple(point + 0.2j for point in _polar((1.13, 0), (1.13, 120), (1.13, 240))),),
    "star": (_polar(*((1.0 if step % 2 == 0 else 0.46, 36 * step) for step in range(10))),),
    "heart": (_heart(),),
    "cross": (_cross(),),
    "ring": (_disc(), _disc(0.5)),
    "moon": (_moon(),),
}

#: Names of the categories of `scene_text.category_boxes`.
CATEGORIES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)


@lru_cache(maxsize=8)
def scene(seed: int, split: str, index: int, image_size: int = 96) -> Scene:
    """The scene number `index` of a split, laid out for a square image of `image_size` pixels.

    Attributes are drawn independently of each other and before the layout, so that no value of one tells of
    another; an object takes over the shape or the colour of an earlier one now and then, so that there is
    something to count and to tell apart. Raises UserError for a bad split, index, seed or size.
    """
    _check(split, seed, image_size)
    if index < 0:
        raise UserError(f"scene index {index} is negative; the scenes of a split are numbered from 0")
    key = f"{split}-{seed}-{index}"
    rng = random.Random(key)  # a text seed is hashed: streams of different keys have nothing in common
    looks: list[tuple[str, str, str, str]] = []
    count = rng.randint(2, 4)
    while len(looks) < count:
        size, texture, colour, shape = (rng.choice(values) for values in scene_text.VALUES.values())
        if looks and (repeat := rng.random()) < 0.5:
            model = rng.choice(looks)
            shape, colour = (model[0], colour) if repeat < 0.25 else (shape, model[1])
        look = (shape, colour, size, texture)
        if look not in looks:
            looks.append(look)
    looks.sort(key=lambda look: look[2])  # "large" before "small": the small object is never the hidden one
    objects = []
    for look, (x, y, diameter) in zip(looks, _place(rng, [rng.uniform(*SIZES[look[2]]) for look in looks])):
        spin = cmath.rect(diameter / 2 * image_size, rng.uniform(-_MAX_TURN, _MAX_TURN))
        centre = complex(x, y) * image_size
        polygons = tuple(
            tuple(((point := centre + spin * unit).real, point.imag) for unit in polygon) for polygon in SHAPES[look[0]]
        )
        xs, ys = zip(*polygons[0])
        shade = rng.uniform(-14, 14)
        rgb = tuple(min(255, max(0, round(level + shade + rng.uniform(-8, 8)))) for level in COLOURS[look[1]])
        objects.append(SceneObject(*look, (min(xs), min(ys), max(xs), max(ys)), polygons, rgb))
    return Scene(key, image_size, rng.choice(tuple(TONES)), tuple(objects))


def _place(rng: random.Random, diameters: list[float]) -> list[tuple[float, float, float]]:
    """(x, y, diameter) in fractions of the side: inside the image, overlapping by less than `_MAX_OVERLAP`.

    Where one finds no room all start over: to shrink it would make large objects rare in full scenes.
    """
    placed: list[tuple[float, float, float]] = []
    while len(placed) < len(diameters):
        d = diameters[len(placed)]
        edge = d / 2 + 0.01
        for _ in range(12):
            x, y = rng.uniform(edge, 1 - edge), rng.uniform(edge, 1 - edge)
            if all(_overlap((x, y, d), other) < _MAX_OVERLAP for other in placed):
                placed.append((x, y, d))
                break
        else:
            placed = []
    return placed


def _overlap(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """Common area of two squares (x, y, side) as a share of the lesser one's."""
    reach = (a[2] + b[2]) / 2
    width, height = reach - abs(a[0] - b[0]), reach - abs(a[1] - b[1])
    return max(width, 0) * max(height, 0) / min(a[2], b[2]) ** 2


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, image_size × image_size, the same for the same scene on every call.

    Behind the objects lie a faint gradient and faint marks that no text speaks of; fine grain lies over all.
    """
    rng = random.Random(f"{scene.key}/canvas")
    side = scene.image_size * _SUPERSAMPLE
    canvas = _background(rng, TONES[scene.tone], side)
    grain = np.frombuffer(rng.randbytes(scene.image_size**2), np.uint8).reshape(scene.image_size, -1, 1)
    pen = ImageDraw.Draw(canvas)
    for thing in scene.objects:
        polygons = [[(x * _SUPERSAMPLE, y * _SUPERSAMPLE) for x, y in polygon] for polygon in thing.polygons]
        left, top, right, bottom = (round(edge * _SUPERSAMPLE) for edge in thing.box)
        mask = Image.new("L", (right - left + 1, bottom - top + 1))
        for polygon, fill in zip(polygons, (255, 0)):
            ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in polygon], fill=fill)
        canvas.paste(_fabric(thing, mask.size, side), (left, top), mask)
        edge = tuple(round(level * 0.3) for level in thing.rgb)
        for polygon in polygons:
            pen.line([*polygon, *polygon[:2]], fill=edge, width=max(1, round(side * 0.008)))
    pixels = np.asarray(canvas.reduce(_SUPERSAMPLE), np.int16) + (grain % 13).astype(np.int16) - 6
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _background(rng: random.Random, tone: tuple[int, int], side: int) -> Image.Image:
    """A soft gradient between four tints of one grey level, with faint strokes and blots."""
    level = rng.uniform(*tone)

    def tint(spread: float) -> tuple[int, int, int]:
        return tuple(round(level + rng.uniform(-spread, spread)) for _ in range(3))

    corners = Image.new("RGB", (2, 2))
    corners.putdata([tint(14) for _ in range(4)])
    canvas = corners.resize((side, side), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.randint(5, 12)):
        x, y, reach = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(0.03, 0.12) * side
        if rng.random() < 0.5:
            pen.ellipse((x - reach / 3, y - reach / 3, x + reach / 3, y + reach / 3), fill=tint(26))
        else:
            end = (x + rng.uniform(-reach, reach) * 2, y + rng.uniform(-reach, reach) * 2)
            pen.line(((x, y), end), fill=tint(26), width=max(1, round(side * 0.012)))
    return canvas


def _fabric(thing: SceneObject, size: tuple[int, int], side: int) -> Image.Image:
    """The object's fill: its colour, with stripes or dots in a much darker shade of it."""
    fabric = Image.new("RGB", size, thing.rgb)
    if thing.texture == "plain":
        return fabric
    pen = ImageDraw.Draw(fabric)
    dark = tuple(round(level * 0.52) for level in thing.rgb)
    width, height = size
    if thing.texture == "striped":
        pitch = side * 0.075
        for step in range(math.ceil((width + height) / pitch)):
            x = (step + 0.5) * pitch
            pen.line(((x, 0), (x - height, height)), fill=dark, width=round(pitch * 0.4))
    else:
        pitch, radius = side * 0.072, side * 0.021
        reach = math.ceil(max(size) / 2 / pitch / 0.87)
        for row in range(-reach, reach + 1):
            for column in range(-reach, reach + 1):
                x = width / 2 + (column + 0.5 * (row % 2)) * pitch
                y = height / 2 + row * pitch * 0.87
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=dark)
    return fabric


def _check(split: str, seed: int, image_size: int) -> None:
    if split not in SPLITS:
        raise UserError(f"scenes: there is no split {split!r}; take one of {', '.join(SPLITS)}")
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"scenes: seed is {seed!r}; give a whole number from 0")
    if not isinstance(image_size, int) or image_size < MIN_SIZE:
        raise UserError(f"scenes: image_size is {image_size!r}; give a number of pixels from {MIN_SIZE}")


class ScenesSource(Source):
    """The first `count` scenes of a split, with all that is said of each; statements are about a scene and
    its neighbour, or with `pairs=False` about one scene."""

    what = "scenes"

    def __init__(self, split: str, count: int, seed: int = 0, image_size: int = 96, pairs: bool = True):
        _check(split, seed, image_size)
        if not isinstance(count, int) or count < 1:
            raise UserError(f"scenes: count is {count!r}; give the number of scenes of the split, at least 1")
        self.name = f"{self.what}-{split}-{seed}"
        self.split, self.count, self.seed, self.image_size, self.pairs = split, count, seed, image_size, pairs
        self.images_each = 2 if pairs else 1  # of a statement

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Scene:
        """The scene behind sample i, for tasks that ask for more than captions."""
        if not 0 <= i < self.count:
            raise IndexError(f"{self.name} has scenes 0 to {self.count - 1}, not {i}")
        return scene(self.seed, self.split, int(i), self.image_size)

    def key(self, i: int) -> str:
        return self[i].key

    def captions(self, i: int) -> tuple[str, ...]:
        return tuple(caption.text for caption in scene_text.captions(self[i]))

    def image(self, i: int, at_least: int = 0) -> Image.Image:
        return draw(self[i])

    def questions(self, i: int) -> tuple[VqaQuestion, ...]:
        return scene_text.questions(self[i])

    def _shown(self, i: int) -> tuple[Scene, ...]:
        return (self[i], self[(i + 1) % self.count]) if self.pairs else (self[i],)

    def statements(self, i: int) -> tuple[Statement, ...]:
        """What is true or false of scene i and its neighbour, or of scene i."""
        return (scene_text.pair_statements if self.pairs else scene_text.statements)(*self._shown(i))

    def images(self, i: int, at_least: int = 0) -> tuple[Image.Image, ...]:
        """The pictures that `statements` speak of."""
        return tuple(map(draw, self._shown(i)))


def answers() -> list[str]:
    """Every answer to a scene's questions."""
    values = [value for kind in scene_text.VALUES.values() for value in kind]
    places = [f"{down} {across}" for down in ("top", "bottom") for across in ("left", "right")]
    return ["yes", "no", *"01234", *values, *places]
