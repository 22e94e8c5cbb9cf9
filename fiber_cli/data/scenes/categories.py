"""Categories of the objects of the built-in scenes, for detection."""

from typing import Literal

from fiber_cli.data.scenes.layout import Box, Scene
from fiber_cli.data.scenes.naming import NAMES, held_out_names, names_of
from fiber_cli.data.scenes.vocabulary import VALUES

#: The names of `scene_detection`: one an object, or all that it can be called.
Naming = Literal["coloured_shapes", "all_levels"]
_COLOURED_SHAPES = tuple(f"{colour} {shape}" for colour in VALUES["colour"] for shape in VALUES["shape"])
_NAMES: dict[Naming, tuple[str, ...]] = {"coloured_shapes": _COLOURED_SHAPES, "all_levels": NAMES}


def categories(naming: Naming, split: str) -> tuple[str, ...]:
    """The names that objects of a split can have: all of them in "novel"; in others none that would be absent from all
    of their scenes."""
    if split == "novel":
        return _NAMES[naming]
    held_out = held_out_names()
    return tuple(name for name in _NAMES[naming] if name not in held_out)


def category_boxes(scene: Scene, naming: Naming = "coloured_shapes") -> tuple[tuple[str, Box], ...]:
    """(category such as "red circle", box) of each object, once for every name that it has; all of them:
    `categories`."""
    named: list[tuple[str, Box]] = []
    for thing in scene.objects:
        names = names_of(thing) if naming == "all_levels" else (f"{thing.colour} {thing.shape}",)
        named += [(name, thing.box) for name in names]
    return tuple(named)
