"""Every caption as a sample of its own."""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from fiber_cli.data.source import CaptionSource, Source


class EachCaption(CaptionSource):
    """A view of a source with one entry per (image, caption) pair: an epoch shows every caption once.

    An image whose captions are missing or unreadable keeps one entry, so that it is counted as bad.
    """

    def __init__(self, source: CaptionSource):
        self.source = source
        self.name = source.name
        self.dropped = source.dropped
        counts = np.array([max(1, source.caption_count(i)) for i in range(len(source))])
        self._image_of = np.repeat(np.arange(len(counts)), counts)
        self._first_of = np.cumsum(counts) - counts

    def total(self) -> int:
        return len(self._image_of)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """All pairs in random order; the source's own order where each image has one caption."""
        if len(self) == len(self.source):
            return self.source.order(rng)
        return rng.permutation(len(self))

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str] | None:
        return self.source.all_texts(reads)

    def key(self, i: int) -> str:
        return self.source.key(self._image(i))

    def captions(self, i: int) -> tuple[str, ...]:
        image = self._image(i)
        number = i - int(self._first_of[image])
        return self.source.captions(image)[number : number + 1]

    def references(self, i: int) -> tuple[str, ...]:
        return self.source.references(self._image(i))

    def image(self, i: int, at_least: int = 0) -> Image.Image:
        return self.source.image(self._image(i), at_least)

    def image_id(self, i: int) -> int | str:
        return self.source.image_id(self._image(i))

    def domain(self, i: int) -> str | None:
        return self.source.domain(self._image(i))

    def _image(self, i: int) -> int:
        return int(self._image_of[i])
