"""Text that Pillow's built-in font can draw."""

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: No text of a picture has more lines.
MOST_LINES = 40


def wrapped(text: str, font: Font, width: float, most_lines: int = MOST_LINES) -> list[str]:
    """The text in lines of at most `width` pixels, broken between words, and within those that are longer than a line.
    What the font lacks stands as `?`; what does not fit into `most_lines` ends in dots. At least one line."""
    lines: list[str] = []
    # No letter is narrower than a pixel.
    rest = _latin(text[: (most_lines + 1) * round(width + 1)]).strip()
    while rest and len(lines) < most_lines:
        line = _line(rest, font, width)
        lines.append(line)
        rest = rest[len(line) :].lstrip()
    if rest:
        lines[-1] = drawable(f"{lines[-1]} {rest}", font, width)
    return lines or [""]


def _line(text: str, font: Font, width: float) -> str:
    """The beginning of a text that fits into a line; one letter at least."""
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) > width:
            break
        line = longer
    if line:
        return line
    length = 1
    while length < len(text) and font.getlength(text[: length + 1]) <= width:
        length += 1
    return text[:length]


def drawable(text: str, font: Font, width: float) -> str:
    """The text with `?` for what Pillow's built-in font lacks, cut to `width` pixels."""
    text = _latin(text[: round(width) + 1])
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _latin(text: str) -> str:
    """The text with `?` for what the font lacks, and spaces for what has no shape."""
    latin = text.encode("latin-1", "replace").decode("latin-1")
    return "".join(character if character.isprintable() else " " for character in latin)
