"""The batch of a run that goes on, on as many ranks or on others."""

import json

import pytest
from rank_processes import on_two_ranks
from small_runs import RECIPE

from fiber_cli.config.resolve import parse_recipe
from fiber_cli.errors import EXIT_OK, UserError
from fiber_cli.training.continuing import with_batch_of_run
from fiber_cli.training.fit import fit
from fiber_cli.training.plan import dry_run
from fiber_cli.training.progress import Progress
from fiber_cli.training.state import AskedBatch, RankState, RunState


def recipe(micro_batch, global_batch, *overrides):
    batch = [f"runtime.micro_batch={micro_batch}", f"runtime.global_batch={global_batch}"]
    return parse_recipe(RECIPE, "test", [*batch, "data.workers=0", "optim.warmup=0", *overrides])


@pytest.fixture
def run_of(tmp_path):
    """Makes the folder of a run, as far as its batch is asked for: on so many ranks, by a recipe or, with given=False,
    as a version kept it that did not write down what was asked for."""

    def make(ranks, micro_batch, global_batch, *, given=True):
        asked = recipe(micro_batch, global_batch)
        own = asked.on_ranks(ranks)
        state_of_ranks = [RankState({"seen": 0, "bad": 0}, 0)] * ranks
        batch = AskedBatch(global_batch, micro_batch) if given and own != asked else None
        state = tmp_path / "checkpoints" / "step-000001" / "state"
        state.mkdir(parents=True)
        (state.parent / "config.json").write_text("{}")
        (state.parents[1] / "latest").write_text("step-000001\n")
        (state / "run.json").write_text(RunState(Progress(step=1), state_of_ranks, None, batch).to_json())
        (tmp_path / "recipe.yaml").write_text(own.to_yaml())
        return tmp_path

    return make


def batch_of(settings, folder, world):
    runtime = with_batch_of_run(settings, folder, world).runtime
    return runtime.micro_batch, runtime.global_batch


@pytest.mark.parametrize("given", [True, False])
def test_a_batch_that_was_rounded_must_be_typed_by_hand(run_of, given):
    """64 in micro-batches of 32 become 63 on three ranks, 21 each."""
    folder = run_of(3, 32, 64, given=given)
    for settings in (recipe(32, 64), recipe(21, 63)):
        assert batch_of(settings, folder, 3) == (21, 63)
        assert batch_of(settings, folder, 1) == (21, 63)
        assert batch_of(settings, folder, 7) == (9, 63)
        with pytest.raises(
            UserError, match="its batch of 63 does not divide by 2 ranks: go on with --nproc 1 or"
        ) as told:
            with_batch_of_run(settings, folder, 2)
        assert "--nproc 1 or --nproc 3, or begin a new run from its weights with --init-from" in str(told.value)
    assert batch_of(recipe(16, 64), folder, 1) == (9, 63)  # no larger than the recipe's


def test_a_batch_that_was_not_rounded_is_changed(run_of):
    folder = run_of(2, 4, 8)
    assert batch_of(recipe(4, 8), folder, 1) == (4, 8)
    assert batch_of(recipe(8, 8), folder, 2) == (4, 8)
    assert batch_of(recipe(4, 8), folder, 4) == (2, 8)
    with pytest.raises(UserError, match="batch of 8 does not divide by 3 ranks: go on with --nproc 2 or --nproc 4"):
        with_batch_of_run(recipe(4, 8), folder, 3)
    with pytest.raises(UserError, match="go on with --nproc 8, or begin"):
        with_batch_of_run(recipe(4, 8), folder, 9)


def test_another_batch_is_taken_for_the_run_s(run_of):
    """What differs is told by the settings, see `check_same_recipe`."""
    folder = run_of(3, 32, 64)
    assert batch_of(recipe(32, 128), folder, 1) == (32, 128)
    assert batch_of(recipe(16, 64), folder, 3) != (21, 63)


ASKED = (3, 3, "log.save_every=1", "optim.schedule=constant")


def on_both(rank, folder):
    return fit(recipe(*ASKED, "optim.steps=2"), folder / "run")


def test_a_run_of_two_ranks_does_not_go_on_on_one_with_the_same_command(tmp_path, capsys):
    assert [each.result for each in on_two_ranks(tmp_path, on_both, joins=False)] == [EXIT_OK] * 2
    run = tmp_path / "run"
    for steps in (3, 4):  # the second time on as many ranks as before
        longer = recipe(*ASKED, f"optim.steps={steps}")
        before = (run / "checkpoints" / "latest").read_text()
        dry_run(longer, continued=run)
        assert f"steps: {steps} of 4 samples" in capsys.readouterr().out
        assert (run / "checkpoints" / "latest").read_text() == before
        assert fit(longer, run, resume=True) == EXIT_OK
        assert "the run keeps its batch: runtime.global_batch=4" in capsys.readouterr().err
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["global_batch"], summary["global_batch_asked"]) == (4, 3)
    for way in (lambda settings: fit(settings, run, resume=True), lambda settings: dry_run(settings, continued=run)):
        with pytest.raises(UserError, match=r"runtime\.global_batch: 4 in the run, 6 now"):
            way(recipe(2, 6, *ASKED[2:], "optim.steps=4"))
