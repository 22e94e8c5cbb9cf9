"""A source of small images for tests."""

from PIL import Image

from fiber_cli.data.source import BadSample, CaptionSource


class ColourImages(CaptionSource):
    """Images of one colour, which tells their number.

    bad: numbers of the images that cannot be read. captions: makes the captions of an image of its number.
    """

    def __init__(self, count, name="colours", bad=(), captions=None):
        self.count = count
        self.name = name
        self.bad = set(bad)
        self.text = captions

    def total(self):
        return self.count

    def key(self, i):
        return str(i)

    def captions(self, i):
        return self.text(i) if self.text else (f"a {'bc' * (i % 3)}", "d e", "left f")

    def image(self, i, at_least=0):
        if i in self.bad:
            raise BadSample("not there")
        return Image.new("RGB", (40, 30), (i % 256, i // 256, 7))
