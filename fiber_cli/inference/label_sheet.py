"""A contact sheet of labelled pictures: some of each split, with their boxes in the colours of their classes."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from fiber_cli.data.images import open_image
from fiber_cli.data.label_check import LabelSplit
from fiber_cli.data.source import BadSample
from fiber_cli.errors import UserError
from fiber_cli.inference.annotate import label_colour
from fiber_cli.inference.lettering import Font, wrapped
from fiber_cli.outputs import Outputs

#: Pixels: the side of the square that a picture is shrunk or enlarged into, the space around it, letters, their lines.
TILE, GAP, LETTERS, LINE = 320, 12, 16, 22
COLUMNS = 4
_GREY = (224, 224, 224)


class _Tile(NamedTuple):
    """A picture's path, its number in its split, and the lines under it."""

    picture: Image.Image
    caption: list[str]


def draw_label_sheet(splits: Sequence[LabelSplit], file: Path, shown: int, outputs: Outputs) -> None:
    """Write a picture of `shown` pictures of each split, spread over it. UserError where it cannot be written."""
    font = ImageFont.load_default(LETTERS)
    names: list[str] = []
    for split in splits:
        for category in split.labelled.categories:
            if category.name not in names:
                names.append(category.name)
    columns = max(2, min(COLUMNS, shown))
    width = GAP + columns * (TILE + GAP)
    strips = [_legend(names, width, font)]
    for split in splits:
        tiles = [_tile(split, number, names, font) for number in _spread(len(split.labelled.paths), shown)]
        strips.append(_heading(f"{split.name}: {len(split.labelled.paths):,} pictures", width, font))
        for first in range(0, len(tiles), columns):
            strips.append(_row(tiles[first : first + columns], width, font))
    sheet = Image.new("RGB", (width, sum(strip.height for strip in strips) + GAP), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    stream = io.BytesIO()
    try:
        sheet.save(stream, Image.registered_extensions()[file.suffix.lower()])
    except (OSError, ValueError) as error:  # a form has fewer pixels than this
        raise UserError(f"--sheet {file}: cannot be written ({error}); name a .png or .jpg file") from None
    outputs.write(file, stream.getvalue())


def _spread(count: int, shown: int) -> list[int]:
    """So many numbers below `count`, from the first to the last."""
    numbers = set()
    for step in range(min(shown, count)):
        numbers.add(round(step * (count - 1) / max(1, shown - 1)))
    return sorted(numbers)


def _legend(names: Sequence[str], width: int, font: Font) -> Image.Image:
    """The classes in their colours, as many in a line as fit."""
    places = []
    left, line = GAP, 0
    for number, name in enumerate(names):
        text = wrapped(name, font, width - 4 * GAP, 1)[0]
        needed = LINE + int(font.getlength(text)) + GAP
        if left > GAP and left + needed > width:
            left, line = GAP, line + 1
        places.append((left, GAP + line * LINE, text, label_colour(number)))
        left += needed
    strip = Image.new("RGB", (width, GAP + (line + 1) * LINE), "white")
    draw = ImageDraw.Draw(strip)
    for x, y, text, colour in places:
        draw.rectangle((x, y + 3, x + LETTERS - 3, y + LETTERS), fill=colour)
        draw.text((x + LINE - 2, y + LINE / 2), text, "black", font, "lm")
    return strip


def _heading(text: str, width: int, font: Font) -> Image.Image:
    strip = Image.new("RGB", (width, LINE + GAP), "white")
    ImageDraw.Draw(strip).text((GAP, GAP + LINE / 2), wrapped(text, font, width - 2 * GAP, 1)[0], "black", font, "lm")
    return strip


def _row(tiles: Sequence[_Tile], width: int, font: Font) -> Image.Image:
    height = TILE + LINE * max(len(tile.caption) for tile in tiles) + GAP
    strip = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(strip)
    for column, tile in enumerate(tiles):
        left = GAP + column * (TILE + GAP)
        strip.paste(tile.picture, (left, 0))
        for number, line in enumerate(tile.caption):
            draw.text((left, TILE + (number + 0.5) * LINE), line, "black", font, "lm")
    return strip


def _tile(split: LabelSplit, number: int, names: Sequence[str], font: Font) -> _Tile:
    labelled = split.labelled
    path = labelled.paths[number]
    objects = labelled.files.objects[number]
    square = Image.new("RGB", (TILE, TILE), _GREY)
    draw = ImageDraw.Draw(square)
    caption = [*wrapped(Path(path).name, font, TILE, 2), f"{len(objects)} boxes"]
    try:
        picture = open_image(labelled.folder / path)
    except BadSample:
        draw.text((TILE / 2, TILE / 2), "cannot be read", "black", font, "mm")
        return _Tile(square, caption)
    scale = TILE / max(picture.size)
    small = picture.resize((max(1, round(scale * picture.width)), max(1, round(scale * picture.height))))
    left, top = (TILE - small.width) // 2, (TILE - small.height) // 2
    square.paste(small, (left, top))
    name_of = {category.identifier: category.name for category in labelled.categories}
    for each in objects:
        x1, y1, x2, y2 = (scale * edge for edge in each.edges)
        frame = (left + x1, top + y1, left + max(x1, x2 - 1), top + max(y1, y2 - 1))
        draw.rectangle(frame, outline=label_colour(names.index(name_of[each.category])), width=2)
    return _Tile(square, caption)
