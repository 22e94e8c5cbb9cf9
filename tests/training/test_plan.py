"""What `--dry-run` tells of a run."""

import re

import pytest
import toy_training
from small_runs import RECIPE

from fiber_cli.config.resolve import parse_recipe
from fiber_cli.errors import UserError
from fiber_cli.training.plan import GIB, dry_run, memory_in_words

#: Parameters that take one GiB as float32.
PARAMETERS = GIB // 4


@pytest.mark.parametrize(
    ("changes", "world", "expected"),
    [
        ({}, 1, "weights 1.00  gradients 1.00  optimiser 2.00 GiB"),
        ({}, 4, "weights 1.00  gradients 1.00  optimiser 2.00 GiB"),
        ({"runtime.zero_stage": 1}, 4, "weights 1.00  gradients 1.00  optimiser 0.75 GiB"),
        ({"runtime.zero_stage": 2}, 4, "weights 1.00  gradients 0.25  optimiser 0.75 GiB"),
        ({"runtime.zero_stage": 3}, 4, "weights 0.25  gradients 0.25  optimiser 0.50 GiB"),
        ({"runtime.ema": 0.9}, 1, "weights 1.00  gradients 1.00  optimiser 2.00  moving average 1.00 GiB"),
        (
            {"runtime.zero_stage": 1, "runtime.offload": "cpu"},
            1,
            "weights 1.00  gradients 1.00  optimiser 3.00 GiB (optimiser on the CPU)",
        ),
    ],
)
def test_memory_is_shared_as_the_zero_stage_says(changes, world, expected):
    assert memory_in_words(PARAMETERS, toy_training.recipe(changes), world) == expected


@pytest.fixture
def alone(monkeypatch):
    """No launcher's environment."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_recipe_sizes_steps_and_a_batch_are_shown(alone, capsys):
    recipe = parse_recipe(RECIPE, "small")
    dry_run(recipe)
    printed = capsys.readouterr().out
    assert printed.startswith(recipe.to_yaml())
    assert re.search(
        r"^parameters:  image [\d,]+  text [\d,]+  fusion \(image side\) [\d,]+ .*total [\d,]+$", printed, re.M
    )
    assert "memory per rank on 1 ranks, without activations:  weights 0.0" in printed
    assert "steps: 4 of 8 samples, 2.00 epochs" in printed
    assert re.search(r"one batch of 8:  .*itc_loss \d", printed)
    assert re.search(r"forward and backward took [\d.]+ s; peak memory [\d.]+ GiB", printed)


def test_of_several_ranks_only_the_first_shows_it(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    dry_run(parse_recipe(RECIPE, "small", ["runtime.micro_batch=4"]))
    assert capsys.readouterr().out == ""


def test_compiling_that_does_not_run_is_found_in_the_training_alone(monkeypatch):
    monkeypatch.setattr("fiber_cli.training.compilation.compiling_problem", lambda target: "no compiler")
    with pytest.raises(UserError, match=r"runtime\.compile: torch\.compile does not run here: no compiler"):
        dry_run(parse_recipe(RECIPE, "small", ["runtime.compile=true"]))


def test_ranks_that_do_not_divide_the_batch_are_refused_or_change_it_in_silence(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "3")
    dry_run(parse_recipe(RECIPE, "small"))
    printed = capsys.readouterr().out
    assert "of 9 samples" in printed
    assert "runtime.global_batch=8 does not divide by micro_batch 8 x 3 ranks" in printed
