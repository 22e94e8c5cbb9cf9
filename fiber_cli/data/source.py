"""What every source of images and captions offers, whatever its files look like."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from PIL import Image


class BadSample(Exception):
    """One image or text that cannot be used. The reason is shown to the user; the run goes on without it."""


class Source(Protocol):
    """Images with captions, by number. Objects must pickle, because worker processes get copies.

    Sources of files have `max_pixels`: images with more are bad samples. prompts: how prompts show category names,
    see `prompts.shown_names`.
    """

    name: str
    prompts: Mapping[str, Mapping[str, str]] | None = None

    def __len__(self) -> int: ...

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """A permutation of `range(len(self))`; neighbours may share a file, so that reading stays local."""
        return rng.permutation(len(self))

    def key(self, i: int) -> str:
        """The image's id, unique within the source."""

    def captions(self, i: int) -> tuple[str, ...]:
        """The image's captions, possibly none; raises `BadSample` where they cannot be read."""

    def caption_count(self, i: int) -> int:
        """How many captions an image has; 0 where they cannot be read."""
        return len(readable_captions(self, i))

    def image(self, i: int, at_least: int = 0) -> Image.Image:
        """The picture in RGB; `at_least` > 0 allows to decode it smaller and faster while both sides stay at least that
        many pixels. Raises `BadSample` where it cannot be read."""


def sample_id(source: Source, i: int) -> str:
    """The name under which logs and results speak of an image: `source/key`."""
    return f"{source.name}/{source.key(i)}"


def usable(
    items: Iterable[Any], read: Callable[[Any], Any], name: Callable[[Any], str]
) -> tuple[list[Any], list[Any], list[tuple[str, str]]]:
    """The items that `read` can use, what it makes of them, and (name, reason) of those for which it raises
    `BadSample`."""
    kept, made, bad = [], [], []
    for item in items:
        try:
            made.append(read(item))
            kept.append(item)
        except BadSample as error:
            bad.append((name(item), str(error)))
    return kept, made, bad


def some_captions(source: Source, i: int) -> tuple[str, ...]:
    """The image's captions, at least one; raises `BadSample`."""
    captions = source.captions(i)
    if not captions:
        raise BadSample("no caption")
    return captions


def readable_captions(source: Source, i: int) -> tuple[str, ...]:
    """The image's captions, none where they cannot be read."""
    try:
        return source.captions(i)
    except BadSample:
        return ()


class EachCaption(Source):
    """A view of a source with one entry per (image, caption) pair: an epoch shows every caption once.

    An image whose captions are missing or unreadable keeps one entry, so that it is counted as bad.
    """

    def __init__(self, source: Source):
        self.source, self.name = source, source.name
        counts = np.array([max(1, source.caption_count(i)) for i in range(len(source))])
        self._image = np.repeat(np.arange(len(counts)), counts)
        self._first = np.cumsum(counts) - counts

    def __len__(self) -> int:
        return len(self._image)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """All pairs in random order; the source's own order where each image has one caption."""
        return self.source.order(rng) if len(self) == len(self.source) else rng.permutation(len(self))

    def key(self, i: int) -> str:
        return self.source.key(int(self._image[i]))

    def captions(self, i: int) -> tuple[str, ...]:
        image = int(self._image[i])
        number = i - int(self._first[image])
        return self.source.captions(image)[number : number + 1]

    def image(self, i: int, at_least: int = 0) -> Image.Image:
        return self.source.image(int(self._image[i]), at_least)
