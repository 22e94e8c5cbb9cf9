"""Pictures and boxes to the network's pixels, in the published convention of boxes.

Sources give boxes as xyxy edges, x2 = x + width. The network's boxes name the first and the last pixel, both inside:
x2 = x + width - 1, and mirroring and clipping keep to that.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from fiber_cli.tasks.regions.prompts import Span

LONGEST = 1333
#: The maps of all levels halve evenly on sides that are multiples of this.
DIVISOR = 32
_SIDES = re.compile(r"\b(left|right)(?=(?:most|hand|side|wards?|s)?\b)", re.IGNORECASE)


def resized(height: int, width: int, short: int, longest: int = LONGEST) -> tuple[int, int]:
    """(height, width) with the shorter side `short`, or less where the longer side would pass `longest`."""
    low, high = min(height, width), max(height, width)
    if high / low * short > longest:
        short = max(1, round(longest * low / high))
    if low == short:
        return height, width
    return (int(short * height / width), short) if width < height else (short, int(short * width / height))


def scale_boxes(boxes: np.ndarray, size: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Boxes (n, 4) of a picture of `size` (height, width) in that picture at `new`."""
    y, x = new[0] / size[0], new[1] / size[1]
    return boxes * np.array([x, y, x, y], boxes.dtype)


def inclusive(boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Edges (n, 4) to (boxes of first and last pixels, kept inside the picture; bool (n,), which are boxes still).

    A box of a single row or column of pixels is none, as published.
    """
    last = np.array([size[1], size[0]] * 2, boxes.dtype) - 1
    boxes = (boxes - np.array([0, 0, 1, 1], boxes.dtype)).clip(0, last)
    return boxes, (boxes[:, 2:] > boxes[:, :2]).all(1)


def flip_boxes(boxes: np.ndarray, width: int) -> np.ndarray:
    """Boxes of pixels in the mirrored picture."""
    mirrored = boxes.copy()
    mirrored[:, [0, 2]] = width - 1 - boxes[:, [2, 0]]
    return mirrored


def swap_sides(text: str, spans: Sequence[Sequence[Span]]) -> tuple[str, list[list[Span]]]:
    """The text of the mirrored picture, left for right and right for left, with the spans in it."""
    places: list[tuple[int, int]] = []

    def other(match: re.Match) -> str:
        word = "right" if match[0].lower() == "left" else "left"
        places.append((match.end(), len(word) - len(match[0])))
        return word.upper() if match[0].isupper() else word.capitalize() if match[0][0].isupper() else word

    swapped = _SIDES.sub(other, text)

    def moved(at: int) -> int:
        return at + sum(shift for end, shift in places if end <= at)

    return swapped, [[(moved(start), moved(end)) for start, end in row] for row in spans]


class RegionTransform:
    """Bilinear resize of the shorter side to one of `short_sides`, drawn evenly, and mirroring with chance `flip`.

    One side and no flip is the evaluation transform, and draws nothing.
    """

    def __init__(self, short_sides: Sequence[int], longest: int, flip: float):
        self.short_sides, self.longest, self.flip = tuple(short_sides), longest, flip

    def __call__(
        self, image: Image.Image, boxes: np.ndarray, rng: np.random.Generator | None = None, flip: bool = True
    ) -> tuple[torch.Tensor, np.ndarray, bool]:
        """An RGB picture and boxes of its pixels to uint8 (3, h, w), the boxes in it, and whether it is mirrored."""
        size = image.height, image.width
        short = self.short_sides[0 if len(self.short_sides) == 1 else int(rng.integers(len(self.short_sides)))]
        new = resized(*size, short, self.longest)
        if 1 in new:  # the rule leaves a line of pixels as long as it is
            new = min(new[0], self.longest), min(new[1], self.longest)
        if new != size:
            image = image.resize(new[::-1], Image.Resampling.BILINEAR)
        pixels, boxes = torch.from_numpy(np.array(image)).permute(2, 0, 1), scale_boxes(boxes, size, new)
        mirrored = bool(self.flip and flip and rng.random() < self.flip)
        if mirrored:
            pixels, boxes = pixels.flip(2), flip_boxes(boxes, new[1])
        return pixels, boxes, mirrored


def padded(side):
    """A side of the image, or a tensor of them, as the network gets it."""
    return -(-side // DIVISOR) * DIVISOR


def pad_batch(images: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (3, h, w) of any sizes to (uint8 (B, 3, H, W), true sizes int64 (B, 2) as (h, w)).

    Each picture lies at the top left; H and W are the largest sides, up to a multiple of 32. The padding is 0 here,
    and must be set to 0 again once the pixels are normalised.
    """
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = map(padded, sizes.amax(0).tolist())
    batch = torch.zeros((len(images), 3, height, width), dtype=torch.uint8)
    for row, image in zip(batch, images):
        row[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes
