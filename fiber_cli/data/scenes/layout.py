"""Built-in scenes: pictures of which everything is known, so that every task has data to start with.

`scene` is a pure function of (seed, split, index); the same scene can be laid out at any size. `drawing` makes its
picture, and `captions`, `questions`, `statements` and `expressions` what is said of it.
"""

import cmath
import math
import random
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from fiber_cli.data.scenes.shapes import SHAPES
from fiber_cli.data.scenes.vocabulary import HELD_OUT, VALUES
from fiber_cli.errors import UserError

#: Every scene of "novel" has an object of `HELD_OUT`, whose colour and shape no scene of the others shows together.
SPLITS = ("train", "val", "test", "novel")
MIN_SIZE = 32
#: A picture of this side takes 0.7 GB while it is drawn, larger ones more than machines have.
MAX_SIZE = 4096
#: The fewest and the most objects that there can be, and those of scenes that do not say so.
OBJECT_LIMITS = (1, 4)
OBJECTS = (2, 4)

Point = tuple[float, float]
Box = tuple[float, float, float, float]
Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
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

#: How many objects of scenes with objects that are nearly alike are so.
_ALIKE = 0.85
_MAX_OVERLAP = 0.12
_MAX_TURN = math.radians(12)
_PLACING_ATTEMPTS = 12


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
    rgb: Rgb

    @property
    def centre(self) -> Point:
        """Middle of the box, in pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @cached_property
    def attributes(self) -> dict[str, str]:
        """Attribute → value, in the order of `VALUES`."""
        return {"size": self.size, "texture": self.texture, "colour": self.colour, "shape": self.shape}


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    key: names the scene whatever its image_size; tone: "dark" or "light" background;
    objects: one to four, no two alike in all four attributes, in drawing order (the nearest last).
    """

    key: str
    split: str
    image_size: int
    tone: str
    objects: tuple[SceneObject, ...]


class _Look(NamedTuple):
    """The attributes of an object before it has its place."""

    shape: str
    colour: str
    size: str
    texture: str


class _Disc(NamedTuple):
    """Where an object lies, in fractions of the image's side; x and y are of the middle."""

    x: float
    y: float
    diameter: float


@lru_cache(maxsize=8)
def scene(
    seed: int,
    split: str,
    index: int,
    image_size: int = 96,
    alike: bool = False,
    objects: tuple[int, int] = OBJECTS,
    siblings: int = 1,
) -> Scene:
    """The scene number `index` of a split, laid out for a square image of `image_size` pixels.

    Attributes are drawn independently of each other and before the layout, so that no value of one tells of
    another; an object takes over the shape or the colour of an earlier one now and then, so that there is something to
    count and to tell apart. alike: most objects differ from an earlier one in one attribute only. objects: the fewest
    and the most of them. siblings: so many scenes in a row are the first of them with one attribute of one object
    changed. Raises UserError for a bad split, index, seed, size or number of objects or siblings.
    """
    check_scenes(split, seed, image_size, objects, siblings)
    if index < 0:
        raise UserError(f"scene index {index} is negative; the scenes of a split are numbered from 0")
    ending = variant(alike, objects, siblings)
    key = f"{split}-{seed}-{index}{ending}"
    first = index - index % siblings
    # A text seed is hashed: streams of different keys have nothing in common.
    rng = random.Random(f"{split}-{seed}-{first}{ending}")
    looks = _looks(rng, split, rng.randint(*objects), alike=alike)
    if index != first:
        _change_one(random.Random(f"{key}/change"), split, looks)
    looks.sort(key=lambda look: look.size)  # "large" before "small": the small object is never the hidden one
    diameters = [rng.uniform(*SIZES[look.size]) for look in looks]
    discs = _discs(rng, diameters)
    drawn = []
    for look, disc in zip(looks, discs, strict=True):
        drawn.append(_object(rng, look, disc, image_size))
    tone = rng.choice(tuple(TONES))
    return Scene(key, split, image_size, tone, tuple(drawn))


def variant(alike: bool, objects: tuple[int, int], siblings: int) -> str:
    """What the names of scenes that are not the usual ones end in."""
    number = "" if objects == OBJECTS else "-{}to{}".format(*objects)
    family = "" if siblings == 1 else f"-{siblings}siblings"
    return f"{number}{'-alike' if alike else ''}{family}"


def check_scenes(split: str, seed: int, image_size: int, objects: tuple[int, int] = OBJECTS, siblings: int = 1) -> None:
    """UserError unless there are scenes of this kind."""
    if split not in SPLITS:
        raise UserError(f"scenes: there is no split {split!r}; take one of {', '.join(SPLITS)}")
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"scenes: seed is {seed!r}; give a whole number from 0")
    if not isinstance(image_size, int) or not MIN_SIZE <= image_size <= MAX_SIZE:
        raise UserError(f"scenes: image_size is {image_size!r}; give a number of pixels from {MIN_SIZE} to {MAX_SIZE}")
    fewest, most = objects
    if not OBJECT_LIMITS[0] <= fewest <= most <= OBJECT_LIMITS[1]:
        raise UserError(
            f"scenes: objects is [{fewest}, {most}]; give the fewest and the most objects of a scene, from "
            f"{OBJECT_LIMITS[0]} to {OBJECT_LIMITS[1]}"
        )
    if not isinstance(siblings, int) or siblings < 1:
        raise UserError(f"scenes: siblings is {siblings!r}; give the scenes of a family, 1 for none that are related")


def _looks(rng: random.Random, split: str, count: int, *, alike: bool) -> list[_Look]:
    """So many looks, no two alike; of a novel scene one is held out from the other splits, which have none such."""
    looks: list[_Look] = []
    if split == "novel":
        looks.append(_held_out_look(rng))
    while len(looks) < count:
        look = _any_look(rng)
        if looks:
            look = _nearly_alike(rng, look, looks) if alike else _resembling(rng, look, looks)
        if _is_allowed(split, look) and look not in looks:
            looks.append(look)
    return looks


def _is_allowed(split: str, look: _Look) -> bool:
    return split == "novel" or (look.colour, look.shape) not in HELD_OUT


def _change_one(rng: random.Random, split: str, looks: list[_Look]) -> None:
    """Give one attribute of one of the looks another value; no two are alike afterwards either."""
    while True:
        number = rng.randrange(len(looks))
        attribute = rng.choice(_Look._fields)
        changed = looks[number]._replace(**{attribute: rng.choice(VALUES[attribute])})
        if changed not in looks and _is_allowed(split, changed):
            looks[number] = changed
            return


def _held_out_look(rng: random.Random) -> _Look:
    colour, shape = rng.choice(sorted(HELD_OUT))
    return _any_look(rng)._replace(colour=colour, shape=shape)


def _any_look(rng: random.Random) -> _Look:
    return _Look(
        size=rng.choice(VALUES["size"]),
        texture=rng.choice(VALUES["texture"]),
        colour=rng.choice(VALUES["colour"]),
        shape=rng.choice(VALUES["shape"]),
    )


def _resembling(rng: random.Random, look: _Look, earlier: list[_Look]) -> _Look:
    """The look; half of the time with the shape or the colour of an earlier one."""
    chance = rng.random()
    if chance >= 0.5:
        return look
    model = rng.choice(earlier)
    if chance < 0.25:
        return look._replace(shape=model.shape)
    return look._replace(colour=model.colour)


def _nearly_alike(rng: random.Random, look: _Look, earlier: list[_Look]) -> _Look:
    """An earlier look with one attribute of this one, mostly; else this one."""
    if rng.random() >= _ALIKE:
        return look
    attribute = rng.choice(_Look._fields)
    return rng.choice(earlier)._replace(**{attribute: look._asdict()[attribute]})


def _discs(rng: random.Random, diameters: list[float]) -> list[_Disc]:
    """Discs of these diameters inside the image that overlap by less than `_MAX_OVERLAP`.

    Where one finds no room all start over: to shrink it would make large objects rare in full scenes.
    """
    discs: list[_Disc] = []
    while len(discs) < len(diameters):
        disc = _free_disc(rng, diameters[len(discs)], discs)
        if disc is None:
            discs = []
        else:
            discs.append(disc)
    return discs


def _free_disc(rng: random.Random, diameter: float, others: list[_Disc]) -> _Disc | None:
    edge = diameter / 2 + 0.01
    for _ in range(_PLACING_ATTEMPTS):
        disc = _Disc(rng.uniform(edge, 1 - edge), rng.uniform(edge, 1 - edge), diameter)
        if all(_overlap(disc, other) < _MAX_OVERLAP for other in others):
            return disc
    return None


def _overlap(a: _Disc, b: _Disc) -> float:
    """Common area of the squares around two discs as a share of the lesser one's."""
    reach = (a.diameter + b.diameter) / 2
    width = reach - abs(a.x - b.x)
    height = reach - abs(a.y - b.y)
    return max(width, 0) * max(height, 0) / min(a.diameter, b.diameter) ** 2


def _object(rng: random.Random, look: _Look, disc: _Disc, image_size: int) -> SceneObject:
    spin = cmath.rect(disc.diameter / 2 * image_size, rng.uniform(-_MAX_TURN, _MAX_TURN))
    centre = complex(disc.x, disc.y) * image_size
    polygons = []
    for outline in SHAPES[look.shape]:
        polygons.append(tuple(_placed_point(centre + spin * unit) for unit in outline))
    xs, ys = zip(*polygons[0], strict=True)
    box = (min(xs), min(ys), max(xs), max(ys))
    return SceneObject(*look, box, tuple(polygons), _shade(rng, COLOURS[look.colour]))


def _placed_point(point: complex) -> Point:
    return point.real, point.imag


def _shade(rng: random.Random, colour: Rgb) -> Rgb:
    """A colour a little lighter or darker, and a little off."""
    shade = rng.uniform(-14, 14)
    red, green, blue = (_level(level + shade + rng.uniform(-8, 8)) for level in colour)
    return red, green, blue


def _level(value: float) -> int:
    return min(255, max(0, round(value)))
