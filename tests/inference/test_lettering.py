"""What the built-in font draws of a text."""

from PIL import ImageFont

from fiber_cli.inference.lettering import drawable


def test_a_text_is_cut_to_its_width_and_to_what_the_font_has():
    font = ImageFont.load_default(13)
    assert drawable("a red thing", font, 500) == "a red thing"
    assert drawable("красный 🙂\tthing", font, 500) == "??????? ? thing"
    cut = drawable("x" * 900, font, 100)
    assert cut.endswith("x...")
    assert 90 < font.getlength(cut) <= 100
    assert drawable("xxxx", font, 1) == "..."


def test_what_cannot_be_drawn_leaves_no_mark_or_takes_minutes():
    font = ImageFont.load_default(13)
    assert drawable("a\nb\x1bc\x9bd\u202ee\udce9f", font, 500) == "a b c d?e?f"
    assert drawable("i" * 10**7, font, 100).endswith("i...")
