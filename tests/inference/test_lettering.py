"""What the built-in font draws of a text."""

from PIL import ImageFont

from fiber_cli.inference.lettering import drawable, wrapped


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


def test_a_text_is_cut_where_it_could_be_wrapped():
    font = ImageFont.load_default(13)
    text = "a large blue striped circle left of a small yellow triangle  and of a ring"
    for width in (60, 100, 333, 10_000):
        lines = wrapped(text, font, width)
        assert max(map(font.getlength, lines)) <= width
        assert " ".join(lines).split() == text.split()
    assert wrapped(text, font, 10_000) == [text]
    long_word = wrapped("x" * 100 + " end", font, 100)
    assert "".join(long_word) == "x" * 100 + " end"
    assert all(font.getlength(line) > 90 for line in long_word[:-1])
    assert wrapped("", font, 100) == wrapped(" \n", font, 100) == [""]


def test_lines_without_end_are_made_of_a_text():
    font = ImageFont.load_default(13)
    lines = wrapped("word " * 10**6, font, 100, 3)
    assert len(lines) == 3
    assert lines[-1].endswith("...")
    assert max(map(font.getlength, lines)) <= 100
    assert wrapped("\u202ea\x1bb", font, 100) == ["?a b"]
    assert wrapped("ab", font, 1) == ["a", "b"]
