"""What is so in a built-in scene: which objects have which attributes, and how they lie.

Left, right, above and below compare the middles of boxes, and are said or denied only where a margin is kept.
"""

import random
from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

from fiber_cli.data.scenes.layout import Scene
from fiber_cli.data.scenes.vocabulary import ATTRIBUTES, HELD_OUT, VALUES, noun_phrase

_MARGIN = 0.1  # of the image's side, between middles

Attributes = dict[str, str]


class Description(NamedTuple):
    """Attributes, and the objects of a scene that have them all, as indices."""

    attributes: Attributes
    objects: set[int]


def related(scene: Scene, relation: str, first: int, second: int) -> bool:
    """Whether the first object lies clearly left of (right of, above, below) the second."""
    axis = 0 if relation in ("left", "right") else 1
    gap = scene.objects[second].centre[axis] - scene.objects[first].centre[axis]
    if relation in ("right", "below"):
        gap = -gap
    return gap > _MARGIN * scene.image_size


def position(scene: Scene, i: int) -> tuple[str, str]:
    """("top", "bottom" or "", "left", "right" or ""), empty within the margin of the middle."""
    x, y = scene.objects[i].centre
    across = _side(x / scene.image_size - 0.5, "left", "right")
    down = _side(y / scene.image_size - 0.5, "top", "bottom")
    return down, across


def _side(offset: float, before: str, behind: str) -> str:
    if abs(offset) <= _MARGIN:
        return ""
    return before if offset < 0 else behind


def count_values(scenes: Iterable[Scene], attribute: str) -> dict[str, int]:
    """How often each value of an attribute occurs, in the scenes together."""
    counts = dict.fromkeys(VALUES[attribute], 0)
    for scene in scenes:
        for thing in scene.objects:
            counts[thing.attributes[attribute]] += 1
    return counts


def values_in(scene: Scene, attribute: str) -> set[str]:
    """The values of an attribute that occur in a scene."""
    return {thing.attributes[attribute] for thing in scene.objects}


def looks(scene: Scene) -> set[tuple[str, str]]:
    """(colour, shape) of the objects of a scene."""
    return {(thing.colour, thing.shape) for thing in scene.objects}


def coloured_shapes(scene: Scene) -> tuple[list[Attributes], list[Attributes]]:
    """Colour with shape: those in the scene, and those not in it that share the one or the other with it; of a novel
    scene held-out ones only, of others none such, which would be absent from all of them."""
    present = {look for look in looks(scene) if _can_be_asked(scene, look)}
    colours = values_in(scene, "colour")
    shapes = values_in(scene, "shape")
    absent = []
    for colour in VALUES["colour"]:
        for shape in VALUES["shape"]:
            resembles = colour in colours or shape in shapes
            if resembles and _can_be_asked(scene, (colour, shape)) and (colour, shape) not in present:
                absent.append({"colour": colour, "shape": shape})
    return [{"colour": colour, "shape": shape} for colour, shape in sorted(present)], absent


def _can_be_asked(scene: Scene, look: tuple[str, str]) -> bool:
    return (look in HELD_OUT) == (scene.split == "novel")


def descriptions(scene: Scene, i: int, without: str = "") -> list[Description]:
    """Every choice of attributes of object i but `without`, the fewest first."""
    having: dict[str, set[int]] = {}
    for name, value in scene.objects[i].attributes.items():
        if name != without:
            having[name] = {j for j, other in enumerate(scene.objects) if other.attributes[name] == value}
    choices = []
    for size in range(1, len(having) + 1):
        for names in combinations(having, size):
            attributes = {name: scene.objects[i].attributes[name] for name in names}
            objects = set.intersection(*map(having.__getitem__, names))
            choices.append(Description(attributes, objects))
    return choices


def distinguishing(rng: random.Random, scene: Scene, i: int, without: str = "") -> Attributes | None:
    """Attributes that object i alone has; None where `without` is what sets it apart."""
    choices = [attributes for attributes, objects in descriptions(scene, i, without) if len(objects) == 1]
    return rng.choice(choices) if choices else None


def definite(rng: random.Random, scene: Scene, i: int) -> str:
    """ "the red circle": a phrase that fits object i alone."""
    attributes = distinguishing(rng, scene, i)
    assert attributes is not None, "no two objects of a scene are alike in all attributes"
    return noun_phrase(rng, attributes, "the")


def draw_attribute(rng: random.Random) -> str:
    """One of the four kinds of attribute."""
    return rng.choice(ATTRIBUTES)
