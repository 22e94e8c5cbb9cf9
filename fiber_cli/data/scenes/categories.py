"""Categories of the objects of the built-in scenes, for detection."""

from typing import Literal

from fiber_cli.data.scenes.layout import Box, Scene
from fiber_cli.data.scenes.naming import NAMES, names_of
from fiber_cli.data.scenes.vocabulary import VALUES

#: The names of `scene_detection`: one an object, or all that it can be called.
Naming = Literal["coloured_shapes", "all_levels"]
COLOURED_SHAPES = tuple(f"{colour} {shape}" for colour in VALUES["colour"] for shape in VALUES["shape"])
CATEGORIES: dict[Naming, tuple[str, ...]] = {"coloured_shapes": COLOURED_SHAPES, "all_levels": NAMES}
#: Name → its number among the categories.
LABELS: dict[Naming, dict[str, int]] = {
    naming: {name: number for number, name in enumerate(names)} for naming, names in CATEGORIES.items()
}


def category_boxes(scene: Scene, naming: Naming = "coloured_shapes") -> tuple[tuple[str, Box], ...]:
    """(category such as "red circle", box) of each object, once for every name that it has; all categories:
    `CATEGORIES`."""
    named: list[tuple[str, Box]] = []
    for thing in scene.objects:
        names = names_of(thing) if naming == "all_levels" else (f"{thing.colour} {thing.shape}",)
        named += [(name, thing.box) for name in names]
    return tuple(named)
