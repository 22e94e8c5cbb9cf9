"""The end of a run whose steps are not applied."""

import pytest
import torch
from toy_runs import run

from fiber_cli.errors import UserError
from fiber_cli.training.outcome import MicroBatch, NonFiniteGuard, Outcome


def outcome(*losses: float) -> Outcome:
    """A step of micro-batches with these losses, each of one sample named by its number."""
    micro_batches = [MicroBatch([f"s{number}"], torch.tensor(loss).isfinite()) for number, loss in enumerate(losses)]
    return Outcome({}, micro_batches, float("nan"), applied=False)


def test_the_samples_of_finite_losses_are_not_blamed():
    guard = NonFiniteGuard(limit=1)
    with pytest.raises(UserError, match="step 3: the loss was not finite 1 steps in a row") as error:
        guard.count(outcome(1.0, float("nan")), 3, 1.0)
    assert str(error.value).endswith("look at these samples: s1")


def test_finite_losses_with_another_gradient_blame_all_samples():
    guard = NonFiniteGuard(limit=1)
    with pytest.raises(UserError, match="the gradient was not finite") as error:
        guard.count(outcome(1.0, 2.0), 3, 1.0)
    assert str(error.value).endswith("look at these samples: s0, s1")


def test_an_overflow_of_scaled_gradients_is_not_counted():
    guard = NonFiniteGuard(limit=1)
    guard.count(outcome(1.0), 1, 2.0)
    assert guard.steps == 0
    with pytest.raises(UserError, match="the loss was not finite"):
        guard.count(outcome(float("inf")), 2, 2.0)


def test_only_steps_in_a_row_are_counted():
    guard = NonFiniteGuard(limit=2)
    for step in (1, 3, 5):
        guard.count(outcome(float("nan")), step, 1.0)
        guard.reset()
    guard.count(outcome(float("nan")), 6, 1.0)
    with pytest.raises(UserError, match="step 7: the loss was not finite 2 steps in a row"):
        guard.count(outcome(float("nan")), 7, 1.0)


@pytest.mark.parametrize("world", [1, 2])
def test_nonfinite_losses_in_a_row_end_the_run_naming_the_samples(tmp_path, world):
    poison = [(step, 0) for step in (2, 4, 5, 6)]
    codes, log = run(tmp_path, world=world, recipe={"runtime.max_nonfinite": 3}, poison=poison)
    assert codes == [1] * world
    assert "step 7: the loss was not finite 3 steps in a row" in log
    assert "s4-0" in log
    assert "s6-3" in log
    assert "s2-0" not in log
    # With two ranks the samples of the other rank are not blamed.
    assert ("s4-7" in log) == (world == 1)
