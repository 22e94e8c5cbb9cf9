"""Images with boxes to the network's pixels; the boxes name their first and last pixel, see `data.box_edges`."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from fiber_cli.data.box_edges import flip_boxes, scale_boxes
from fiber_cli.data.records import Size, Span

LONGEST = 1333
_SIDES = re.compile(r"\b(left|right)(?=(?:most|hand|side|wards?|s)?\b)", re.IGNORECASE)


def resized(height: int, width: int, short: int, longest: int = LONGEST) -> Size:
    """(height, width) with the shorter side `short`, or less where the longer side would pass `longest`."""
    low, high = min(height, width), max(height, width)
    if high / low * short > longest:
        short = max(1, round(longest * low / high))
    if low == short:
        return height, width
    if width < height:
        return int(short * height / width), short
    return short, int(short * width / height)


def swap_sides(text: str, spans: Sequence[Sequence[Span]]) -> tuple[str, list[list[Span]]]:
    """The text of the mirrored image, left for right and right for left, with the spans in it."""
    swapped = _SIDES.sub(_other_side, text)
    words = list(_SIDES.finditer(text))

    def moved(offset: int) -> int:
        shift = 0
        for word in words:
            if word.end() <= offset:
                shift += len(_other_side(word)) - len(word[0])
        return offset + shift

    moved_spans = []
    for label_spans in spans:
        moved_spans.append([(moved(start), moved(end)) for start, end in label_spans])
    return swapped, moved_spans


def _other_side(match: re.Match[str]) -> str:
    """The other side, in the case of the word that is there."""
    word = match[0]
    other = "right" if word.lower() == "left" else "left"
    if word.isupper():
        return other.upper()
    if word[0].isupper():
        return other.capitalize()
    return other


class RegionTransform:
    """Bilinear resize of the shorter side to one of `short_sides`, drawn evenly, and mirroring with chance `flip`.

    One side and no flip is the evaluation transform, and draws nothing.
    """

    def __init__(self, short_sides: Sequence[int], longest: int, flip: float):
        self.short_sides = tuple(short_sides)
        self.longest = longest
        self.flip = flip

    def __call__(
        self,
        image: Image.Image,
        boxes: np.ndarray,
        rng: np.random.Generator | None = None,
        flip: bool = True,
        short: int | None = None,
    ) -> tuple[torch.Tensor, np.ndarray, bool]:
        """An RGB image and boxes of its pixels to uint8 (3, h, w), the boxes in it, and whether it is mirrored.

        rng: needed where there is something to draw. flip=False forbids the mirroring. short: the shorter side where it
        has been drawn.
        """
        size = image.height, image.width
        new_size = self.new_size(size, short or self.short_side(rng))
        if new_size != size:
            image = image.resize(new_size[::-1], Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        boxes = scale_boxes(boxes, size, new_size)
        mirrored = flip and self._draw_flip(rng)
        if mirrored:
            pixels = pixels.flip(2)
            boxes = flip_boxes(boxes, new_size[1])
        return pixels, boxes, mirrored

    def new_size(self, size: Size, short: int) -> Size:
        """(height, width) of an image of `size` (height, width) for the network."""
        height, width = resized(*size, short, self.longest)
        if 1 in (height, width):  # the rule leaves a line of pixels as long as it is
            return min(height, self.longest), min(width, self.longest)
        return height, width

    def short_side(self, rng: np.random.Generator | None) -> int:
        """Draws one."""
        if len(self.short_sides) == 1:
            return self.short_sides[0]
        assert rng is not None, "several short sides are drawn from"
        return self.short_sides[int(rng.integers(len(self.short_sides)))]

    def _draw_flip(self, rng: np.random.Generator | None) -> bool:
        if not self.flip:
            return False
        assert rng is not None, "mirroring is drawn"
        return bool(rng.random() < self.flip)
