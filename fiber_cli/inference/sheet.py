"""A picture of search results: a row of thumbnails for each query, the best first."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from fiber_cli.data.images import open_image
from fiber_cli.data.source import BadSample

TILE, GAP, LINE = 160, 8, 20
_GREY = (224, 224, 224)


def draw_sheet(results: Sequence[dict[str, Any]], file: Path, columns: int = 8) -> None:
    """Write a picture of the `columns` best of each query of `search.search`'s results."""
    rows = [(query, list(found)[:columns]) for query, found in groupby(results, key=lambda found: found["query"])]
    width = GAP + max(len(found) for _, found in rows) * (TILE + GAP)
    height = LINE + TILE + LINE + GAP
    sheet = Image.new("RGB", (width, GAP + len(rows) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for row, (query, found) in enumerate(rows):
        top = GAP + row * height
        draw.text((GAP, top), drawable(query, font, width - 2 * GAP), "black", font)
        for column, result in enumerate(found):
            left = GAP + column * (TILE + GAP)
            sheet.paste(_thumbnail(result["path"]), (left, top + LINE))
            draw.text((left, top + LINE + TILE + 2), f"{result['rank']}.  {result['score']:.3f}", "black", font)
    sheet.save(file)


def _thumbnail(path: str) -> Image.Image:
    """The whole picture inside a grey square; an empty one where it cannot be read."""
    try:
        return ImageOps.pad(open_image(path, at_least=TILE), (TILE, TILE), color=_GREY)
    except BadSample:
        return Image.new("RGB", (TILE, TILE), _GREY)


def drawable(text: str, font: ImageFont.ImageFont, width: int) -> str:
    """The text with `?` for what Pillow's built-in font lacks, cut to `width` pixels."""
    text = "".join(c if c.isprintable() else " " for c in text.encode("latin-1", "replace").decode("latin-1"))
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
