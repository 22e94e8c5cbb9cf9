"""`fiber scenes`: pictures to try commands on."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fiber_cli.characters import one_line
from fiber_cli.printing import show


def scenes(
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.")],
    count: Annotated[int, typer.Option(min=1, help="How many pictures.")] = 50,
    split: Annotated[
        Literal["train", "val", "test", "novel"],
        typer.Option(help="No split has a scene of another; `novel` shows colours with shapes that no other does."),
    ] = "test",
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other scenes.")] = 0,
    image_size: Annotated[int, typer.Option(min=32, max=4096, help="Side of a picture in pixels.")] = 256,
    alike: Annotated[
        bool, typer.Option("--alike", help="Most objects differ from another one in one attribute only.")
    ] = False,
) -> None:
    """Write built-in scenes: pictures with captions, boxes, expressions, questions and statements."""
    from fiber_cli.data.scene_files import write_scenes

    write_scenes(out, split, count, seed=seed, image_size=image_size, alike=alike)
    show(one_line(f"{out}: {count} pictures in images/, and what is said of them beside it"))
