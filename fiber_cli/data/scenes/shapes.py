"""Outlines of the shapes of the built-in scenes, as complex points x + iy, y downwards."""

import cmath
import math
from collections.abc import Iterable

Outline = tuple[complex, ...]


def _polar(points: Iterable[tuple[float, float]]) -> Outline:
    """Points by radius and degrees, clockwise from the top."""
    return tuple(cmath.rect(radius, math.radians(degrees - 90)) for radius, degrees in points)


def _shifted(points: Iterable[complex], offset: complex) -> Outline:
    return tuple(point + offset for point in points)


def _disc(radius: float = 1.0) -> Outline:
    return _polar((radius, degrees) for degrees in range(0, 360, 10))


def _square() -> Outline:
    return _polar([(1.15, 45), (1.15, 135), (1.15, 225), (1.15, 315)])


def _triangle() -> Outline:
    return _shifted(_polar([(1.13, 0), (1.13, 120), (1.13, 240)]), 0.2j)


def _star() -> Outline:
    corners = []
    for step in range(10):
        radius = 1.0 if step % 2 == 0 else 0.46
        corners.append((radius, 36 * step))
    return _polar(corners)


def _heart() -> Outline:
    points = []
    for step in range(36):
        t = math.pi * step / 18
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append(complex(x, -y - 2.5) / 17)
    return tuple(points)


def _cross() -> Outline:
    corners = []
    for turn in (1, 1j, -1, -1j):
        for corner in (-0.34 - 0.93j, 0.34 - 0.93j, 0.34 - 0.34j):
            corners.append(corner * turn)
    return tuple(corners)


def _moon() -> Outline:
    """A disc less a second disc of radius 0.8, shifted to the right by 0.5; they meet at x = 0.61."""
    outer = math.acos(0.61)
    inner = math.acos(0.11 / 0.8)
    points = []
    for step in range(25):
        angle = outer + (2 * math.pi - 2 * outer) * step / 24
        points.append(cmath.rect(1, angle))
    for step in range(19, 0, -1):
        angle = inner + (2 * math.pi - 2 * inner) * step / 20
        points.append(0.5 + cmath.rect(0.8, angle))
    return _shifted(points, 0.15)


#: Outline and, of the ring, hole of each shape; turned by up to 12 degrees either way they stay inside [-1, 1] on
#: both axes, but for the tips of the moon (1.03) and the triangle (1.12), which the image's edge may cut by a pixel.
SHAPES: dict[str, tuple[Outline, ...]] = {
    "circle": (_disc(),),
    "square": (_square(),),
    "triangle": (_triangle(),),
    "star": (_star(),),
    "heart": (_heart(),),
    "cross": (_cross(),),
    "ring": (_disc(), _disc(0.5)),
    "moon": (_moon(),),
}
