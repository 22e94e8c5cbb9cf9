"""Where labels stand."""

import random
from itertools import combinations

from fiber_cli.inference.label_layout import Field, lay_out


def common(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def test_a_label_alone_does_not_stand_over_its_box():
    assert lay_out([(50, 60, 90, 90)], [(30, 10)], (200, 200)) == [Field(50, 50, 80, 60)]


def test_a_label_leaves_the_picture():
    corners = [(0, 0, 20, 20), (180, 0, 200, 20), (0, 180, 20, 200), (180, 180, 200, 200)]
    for field in lay_out(corners, [(60, 12)] * 4, (200, 200)):
        assert 0 <= field.left < field.right <= 200
        assert 0 <= field.top < field.bottom <= 200


def test_labels_of_one_object_hide_each_other():
    fields = lay_out([(50, 60, 90, 90)] * 5, [(40, 10)] * 5, (200, 200))
    assert all(common(a, b) == 0 for a, b in combinations(fields, 2))


def test_a_label_hides_an_object_where_there_is_room():
    boxes = [(50, 50, 90, 90), (45, 30, 95, 48)]
    fields = lay_out(boxes, [(40, 12)] * 2, (200, 200))
    assert all(common(field, box) == 0 for field in fields for box in boxes)


def test_crowded_labels_hide_more_than_labels_at_the_upper_left_corner():
    rng = random.Random(0)
    hidden, before = 0.0, 0.0
    for _ in range(50):
        boxes = []
        for _ in range(6):
            x, y = rng.uniform(0, 200), rng.uniform(0, 200)
            boxes.append((x, y, x + 50, y + 50))
        sizes = [(60, 14)] * 6
        fields = lay_out(boxes, sizes, (256, 256))
        plain = [(x1, max(0, y1 - 14), x1 + 60, max(14, y1)) for x1, y1, *_ in boxes]
        hidden += sum(common(a, b) for a, b in combinations(fields, 2))
        before += sum(common(a, b) for a, b in combinations(plain, 2))
    assert hidden < 0.02 * before
