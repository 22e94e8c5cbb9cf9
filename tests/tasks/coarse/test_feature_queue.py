"""The queue keeps the newest features, and goes on where it was."""

import torch
import torch.nn.functional as F

from fiber_cli.tasks.coarse.feature_queue import FeatureQueue


def test_queue_keeps_the_newest():
    queue = FeatureQueue(5, 24)
    rows = F.normalize(torch.randn(7, 24), dim=1)
    queue.push(rows[:3], rows[:3])
    assert (queue.start, queue.filled) == (3, 3)
    torch.testing.assert_close(queue.image[:3], rows[:3])
    queue.push(rows[3:], -rows[3:])
    assert (queue.start, queue.filled) == (2, 5)
    torch.testing.assert_close(queue.text, torch.stack([-rows[5], -rows[6], rows[2], -rows[3], -rows[4]]))


def test_more_features_than_rows_leave_the_last():
    queue = FeatureQueue(2, 3)
    rows = torch.arange(15.0).view(5, 3)
    queue.push(rows, -rows)
    assert queue.image.sort(0).values.tolist() == rows[3:].tolist()
    assert (queue.start, queue.filled) == (0, 2)


def test_state_is_resumed_and_no_part_of_the_weights():
    queue, other = FeatureQueue(5, 3), FeatureQueue(5, 3)
    queue.push(torch.randn(3, 3), torch.randn(3, 3))
    other.load_state({name: value.clone() for name, value in queue.state().items()})
    assert torch.equal(other.image, queue.image)
    assert torch.equal(other.text, queue.text)
    assert (other.start, other.filled) == (3, 3)
    assert queue.state_dict() == {}
    empty = FeatureQueue(0, 3)
    assert empty.state() == {}
    empty.load_state({})
