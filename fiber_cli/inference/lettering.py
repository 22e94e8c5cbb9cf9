"""Text that Pillow's built-in font can draw."""

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def drawable(text: str, font: Font, width: int) -> str:
    """The text with `?` for what Pillow's built-in font lacks, cut to `width` pixels."""
    # No letter is narrower than a pixel.
    latin = text[: width + 1].encode("latin-1", "replace").decode("latin-1")
    text = "".join(character if character.isprintable() else " " for character in latin)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
