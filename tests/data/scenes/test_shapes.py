"""The outlines of the shapes."""

import cmath
import math

import pytest

from fiber_cli.data.scenes.shapes import SHAPES


def test_only_the_ring_has_a_hole():
    assert {shape for shape, outlines in SHAPES.items() if len(outlines) == 2} == {"ring"}
    outer, hole = SHAPES["ring"]
    assert {round(abs(point), 9) for point in outer} == {1}
    assert {round(abs(point), 9) for point in hole} == {0.5}


@pytest.mark.parametrize("degrees", [-12, -5, 0, 7, 12])
def test_turned_shapes_stay_near_their_disc(degrees):
    turn = cmath.rect(1, math.radians(degrees))
    for shape, outlines in SHAPES.items():
        for point in outlines[0]:
            turned = point * turn
            assert max(abs(turned.real), abs(turned.imag)) <= (1.12 if shape == "triangle" else 1.03), shape


def test_shapes_fill_about_the_same_room():
    for shape, (outline, *_) in SHAPES.items():
        height = max(point.imag for point in outline) - min(point.imag for point in outline)
        assert 1.6 <= height <= 2, shape
