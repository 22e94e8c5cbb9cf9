"""A picture of search results: a row of thumbnails for each query, the best first."""

import io
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, ImageOps

from fiber_cli.data.images import open_image
from fiber_cli.data.source import MAX_PIXELS, BadSample
from fiber_cli.errors import UserError
from fiber_cli.inference.lettering import drawable
from fiber_cli.outputs import Outputs

if TYPE_CHECKING:
    from fiber_cli.inference.search import SearchResult

#: Pixels: the side of a thumbnail, the space around it, and the height of a line of text.
TILE, GAP, LINE = 160, 8, 20
LETTERS = 13
_GREY = (224, 224, 224)
_FAINT = (176, 176, 176)


def check_sheet(file: Path) -> None:
    """UserError for a file whose ending is not that of a picture that can be written."""
    Image.init()
    if Image.registered_extensions().get(file.suffix.lower()) not in Image.SAVE:
        raise UserError(f"--sheet {file}: cannot be written (its ending is of no picture); name a .png or .jpg file")


def draw_sheet(
    results: Sequence["SearchResult"],
    file: Path,
    columns: int = 8,
    *,
    max_pixels: int = MAX_PIXELS,
    outputs: Outputs | None = None,
) -> None:
    """Write a picture of the `columns` best of each query of `search.search`'s results, read up to `max_pixels`.
    UserError where it cannot be written."""
    check_sheet(file)
    rows: list[tuple[str, list[SearchResult]]] = []
    for query, of_query in groupby(results, key=attrgetter("query")):
        rows.append((query, list(of_query)[:columns]))
    width = GAP + max(len(row) for _, row in rows) * (TILE + GAP)
    row_height = LINE + TILE + LINE + GAP
    sheet = Image.new("RGB", (width, GAP + len(rows) * row_height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(LETTERS)
    for number, (query, row) in enumerate(rows):
        top = GAP + number * row_height
        title = drawable(query, font, width - 2 * GAP)
        draw.text((GAP, top), title, "black", font)
        for column, result in enumerate(row):
            left = GAP + column * (TILE + GAP)
            sheet.paste(_thumbnail(result.path, max_pixels), (left, top + LINE))
            # A picture that is not likely to show what the query says is only the best that there is.
            ink = _FAINT if result.matches is False else "black"
            draw.text((left, top + LINE + TILE + 2), f"{result.rank}.  {result.score:.3f}", ink, font)
    stream = io.BytesIO()
    try:
        sheet.save(stream, Image.registered_extensions()[file.suffix.lower()])
    except (OSError, ValueError) as error:  # a form has fewer pixels than this
        raise UserError(f"--sheet {file}: cannot be written ({error}); name a .png or .jpg file") from None
    (outputs or Outputs()).write(file, stream.getvalue())


def _thumbnail(path: str, max_pixels: int) -> Image.Image:
    """The whole picture inside a grey square; an empty one where it cannot be read."""
    try:
        return ImageOps.pad(open_image(path, max_pixels, at_least=TILE), (TILE, TILE), color=_GREY)
    except BadSample:
        return Image.new("RGB", (TILE, TILE), _GREY)
