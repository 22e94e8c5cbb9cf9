"""The share of the device's rate that a run shows."""

import json

import torch
from rank_processes import on_two_ranks
from small_runs import RECIPE

from fiber_cli.config.resolve import parse_recipe, resolve_recipe
from fiber_cli.errors import EXIT_OK
from fiber_cli.training.device_rate import measured_rate, share_of_an_image
from fiber_cli.training.fit import fit

DEVICE_SHARE = "log.device_share=true"
SMALL = ["model.preset=tiny", "runtime.micro_batch=4", "runtime.global_batch=4", "task.mlm_pairs=null"]


def on_both(rank, folder):
    return fit(
        parse_recipe(RECIPE, "small", ["optim.steps=1", "optim.warmup=0", "runtime.micro_batch=2", DEVICE_SHARE]),
        folder / "run",
    )


def test_the_first_rank_waits_for_others_that_count_nothing(tmp_path):
    """It counts the operations of a step alone, whose losses compare all ranks' pairs."""
    assert [each.result for each in on_two_ranks(tmp_path, on_both, joins=False)] == [EXIT_OK] * 2
    record = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 < record["device_share"] < 200


def test_a_rate_is_none():
    assert 1e8 < measured_rate(torch.device("cpu"), "fp32") < 1e14


def test_a_share_is_shown_where_it_was_not_asked_for_or_is_no_share():
    share = share_of_an_image(resolve_recipe("tiny", [*SMALL, "log.device_share=true"]))
    assert share is not None
    assert 0 < share < 100
    assert share_of_an_image(resolve_recipe("tiny", [*SMALL, "log.device_share=false"])) is None
