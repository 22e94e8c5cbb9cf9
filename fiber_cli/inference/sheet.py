"""A picture of search results: rows of thumbnails for each query, the best first."""

import io
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

from fiber_cli.data.images import open_image
from fiber_cli.data.source import MAX_PIXELS, BadSample
from fiber_cli.errors import UserError
from fiber_cli.inference.lettering import Font, wrapped
from fiber_cli.outputs import Outputs

if TYPE_CHECKING:
    from fiber_cli.inference.search import SearchResult

#: Pixels: the side of a thumbnail, to which small pictures are enlarged, the space around it, letters and their lines.
TILE, GAP, LETTERS, LINE = 200, 12, 16, 21
#: Thumbnails in a row, of which a sheet is at least this many wide.
COLUMNS, LEAST_COLUMNS = 5, 3
#: Most lines of the name of a file.
NAME_LINES = 3
_GREY = (224, 224, 224)
_FAINT = (176, 176, 176)


def check_sheet(file: Path) -> None:
    """UserError for a file whose ending is not that of a picture that can be written."""
    Image.init()
    if Image.registered_extensions().get(file.suffix.lower()) not in Image.SAVE:
        raise UserError(f"--sheet {file}: cannot be written (its ending is of no picture); name a .png or .jpg file")


class Row(NamedTuple):
    """A query's first or next thumbnails. title: lines above them, empty but for the first; captions: lines below
    each."""

    title: list[str]
    results: "Sequence[SearchResult]"
    captions: list[list[str]]

    def height(self) -> int:
        lines = len(self.title) + max(map(len, self.captions))
        return lines * LINE + TILE + GAP


def draw_sheet(
    results: Sequence["SearchResult"],
    file: Path,
    shown: int = 10,
    *,
    max_pixels: int = MAX_PIXELS,
    outputs: Outputs | None = None,
) -> None:
    """Write a picture of the `shown` best of each query of `search.search`'s results, read up to `max_pixels`.
    UserError where it cannot be written."""
    check_sheet(file)
    font = ImageFont.load_default(LETTERS)
    most_shown = min(shown, max(result.rank for result in results))
    columns = max(LEAST_COLUMNS, min(COLUMNS, most_shown))
    width = GAP + columns * (TILE + GAP)
    rows: list[Row] = []
    for query, of_query in groupby(results, key=attrgetter("query")):
        title = wrapped(query, font, width - 2 * GAP)
        best = list(of_query)[:shown]
        for first in range(0, len(best), columns):
            in_row = best[first : first + columns]
            captions = [_caption(result, font) for result in in_row]
            rows.append(Row(title, in_row, captions))
            title = []
    sheet = Image.new("RGB", (width, GAP + sum(row.height() for row in rows)), "white")
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for row in rows:
        _draw_lines(draw, row.title, GAP, top, font)
        under_title = top + len(row.title) * LINE
        for column, (result, caption) in enumerate(zip(row.results, row.captions, strict=True)):
            left = GAP + column * (TILE + GAP)
            sheet.paste(_thumbnail(result.path, max_pixels, font), (left, under_title))
            # A picture that is not likely to show what the query says is only the best that there is.
            ink = _FAINT if result.matches is False else "black"
            _draw_lines(draw, caption, left, under_title + TILE, font, ink)
        top += row.height()
    stream = io.BytesIO()
    try:
        sheet.save(stream, Image.registered_extensions()[file.suffix.lower()])
    except (OSError, ValueError) as error:  # a form has fewer pixels than this
        raise UserError(f"--sheet {file}: cannot be written ({error}); name a .png or .jpg file") from None
    (outputs or Outputs()).write(file, stream.getvalue())


def _caption(result: "SearchResult", font: Font) -> list[str]:
    """Rank and score, and below them the name of the file."""
    name = wrapped(Path(result.path).name, font, TILE, NAME_LINES)
    return [f"{result.rank}.  {result.score:.3f}", *name]


def _draw_lines(
    draw: ImageDraw.ImageDraw,
    lines: Sequence[str],
    left: float,
    top: float,
    font: Font,
    ink: str | tuple[int, int, int] = "black",
) -> None:
    for number, line in enumerate(lines):
        draw.text((left, top + (number + 0.5) * LINE), line, ink, font, "lm")


def _thumbnail(path: str, max_pixels: int, font: Font) -> Image.Image:
    """The whole picture inside a grey square; where it cannot be read, a square that says so."""
    try:
        return ImageOps.pad(open_image(path, max_pixels, at_least=TILE), (TILE, TILE), color=_GREY)
    except BadSample:
        square = Image.new("RGB", (TILE, TILE), _GREY)
        ImageDraw.Draw(square).text((TILE / 2, TILE / 2), "cannot be read", "black", font, "mm")
        return square
