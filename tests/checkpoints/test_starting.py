"""Which shipped checkpoint a training begins with."""

import pytest
from shipped_checkpoints import ship, ship_likely

from fiber_cli.checkpoints.starting import shipped_to_start, starters
from fiber_cli.errors import UserError
from fiber_cli.tasks import TASKS, declared, tasks_with
from fiber_cli.tasks.abilities import Detecting


@pytest.mark.parametrize("task", TASKS)
def test_a_pretrained_one_with_most_of_the_task_is_taken(ships, task):
    ship_likely(ships)
    expected = "detection" if Detecting in declared(task).abilities else "retrieval"
    assert shipped_to_start(task) == ships / expected


@pytest.mark.parametrize("task", tasks_with(Detecting))
def test_a_detector_without_a_detector_to_start_from_takes_the_encoder(ships, task):
    ship(ships, "retrieval", "coarse")
    assert shipped_to_start(task) == ships / "retrieval"


def test_the_encoder_of_a_detector_starts_nothing_else(ships):
    assert starters("vqa") == ["coarse"]
    ship(ships, "detection", "fine")
    ship(ships, "vqa", "vqa")
    with pytest.raises(UserError, match="no pre-trained checkpoint that can start vqa is shipped") as caught:
        shipped_to_start("vqa")
    assert caught.value.details == ("builtin/detection is a checkpoint of fine", "builtin/vqa is a checkpoint of vqa")


def test_nothing_to_start_from_and_too_much(ships):
    with pytest.raises(UserError, match="this fiber ships no checkpoints"):
        shipped_to_start("vqa")
    ship(ships, "a", "coarse")
    ship(ships, "b", "coarse")
    with pytest.raises(UserError, match=r"builtin/a and builtin/b can start vqa; name one of them with --init-from"):
        shipped_to_start("vqa")
