"""`fiber caption` and `fiber answer`: a text for each of a user's pictures, as a table or as JSON."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from fiber_cli.characters import row
from fiber_cli.data.images import open_image
from fiber_cli.data.source import MAX_PIXELS, usable
from fiber_cli.errors import UserError
from fiber_cli.inference.picture_files import distinct_images
from fiber_cli.inference.pictures import batches
from fiber_cli.printing import say, show, show_json


def describe_images(
    paths: Iterable[Path],
    describe: Callable[[list[Image.Image]], list[str]],
    what: str,
    *,
    batch: int,
    as_json: bool,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Print what `describe` says of each image: `path<TAB>text` lines, or a JSON list of {"image", `what`}.

    Images that cannot be read, or have more than `max_pixels`, are named on standard error and the rest is done;
    UserError where none can be read.
    """
    files = distinct_images(paths)
    with_bar = len(files) > batch and sys.stderr.isatty()
    progress = tqdm(
        batches(files, batch), total=-(-len(files) // batch), unit="batch", disable=not with_bar, dynamic_ncols=True
    )
    read = partial(open_image, max_pixels=max_pixels)
    described = []
    for chunk in progress:
        readable, pictures, bad = usable(chunk, read, str)
        for name, reason in bad:
            say(f"left out: {name}: {reason}")
        texts = describe(pictures) if pictures else []
        for file, text in zip(readable, texts, strict=True):
            described.append({"image": str(file), what: text})
            if not as_json:
                show(row([file, text]), flush=True)
    if not described:
        raise UserError(f"none of {len(files)} images could be read")
    if as_json:
        show_json(described)
