"""Categories of the objects of the built-in scenes, for detection."""

from itertools import chain
from typing import Literal

from fiber_cli.data.scenes.layout import Box, Scene, SceneObject
from fiber_cli.data.scenes.naming import NAMES, forms_of, held_out_names, names_of
from fiber_cli.data.scenes.vocabulary import VALUES

#: The names of `scene_detection`: one an object, all that it can be called, or these as people write them (`forms_of`).
Naming = Literal["coloured_shapes", "all_levels", "as_typed"]
_COLOURED_SHAPES = tuple(f"{colour} {shape}" for colour in VALUES["colour"] for shape in VALUES["shape"])
_AS_TYPED = tuple(chain.from_iterable(map(forms_of, NAMES)))
_NAMES: dict[Naming, tuple[str, ...]] = {
    "coloured_shapes": _COLOURED_SHAPES,
    "all_levels": NAMES,
    "as_typed": _AS_TYPED,
}


def categories(naming: Naming, split: str) -> tuple[str, ...]:
    """The names that objects of a split can have: all of them in "novel"; in others none that would be absent from all
    of their scenes."""
    if split == "novel":
        return _NAMES[naming]
    held_out = set(held_out_names())
    for name in held_out_names():
        held_out.update(forms_of(name))
    return tuple(name for name in _NAMES[naming] if name not in held_out)


def category_boxes(scene: Scene, naming: Naming = "coloured_shapes") -> tuple[tuple[str, Box], ...]:
    """(category such as "red circle", box) of each object, once for every name that it has; all of them:
    `categories`."""
    named: list[tuple[str, Box]] = []
    for thing in scene.objects:
        named += [(name, thing.box) for name in _names_of(thing, naming)]
    return tuple(named)


def _names_of(thing: SceneObject, naming: Naming) -> tuple[str, ...]:
    if naming == "coloured_shapes":
        return (f"{thing.colour} {thing.shape}",)
    names = names_of(thing)
    return names if naming == "all_levels" else tuple(chain.from_iterable(map(forms_of, names)))
