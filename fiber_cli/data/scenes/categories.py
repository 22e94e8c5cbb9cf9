"""Categories of the objects of the built-in scenes, for detection."""

from fiber_cli.data.scenes.layout import Box, Scene
from fiber_cli.data.scenes.vocabulary import VALUES

CATEGORIES = tuple(f"{colour} {shape}" for colour in VALUES["colour"] for shape in VALUES["shape"])


def category_boxes(scene: Scene) -> tuple[tuple[str, Box], ...]:
    """(category such as "red circle", box) of each object; all categories: `CATEGORIES`."""
    return tuple((f"{thing.colour} {thing.shape}", thing.box) for thing in scene.objects)
