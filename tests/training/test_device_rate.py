"""The share of the device's rate that a run shows."""

import torch

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.training.device_rate import measured_rate, share_of_an_image

SMALL = ["model.preset=tiny", "runtime.micro_batch=4", "runtime.global_batch=4", "task.mlm_pairs=null"]


def test_a_rate_is_none():
    assert 1e8 < measured_rate(torch.device("cpu"), "fp32") < 1e14


def test_a_share_is_shown_where_it_was_not_asked_for_or_is_no_share():
    share = share_of_an_image(resolve_recipe("tiny", [*SMALL, "log.device_share=true"]))
    assert share is not None
    assert 0 < share < 100
    assert share_of_an_image(resolve_recipe("tiny", [*SMALL, "log.device_share=false"])) is None
