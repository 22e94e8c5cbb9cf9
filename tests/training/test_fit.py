"""The training loop, driven with a toy task: what it writes, signals, resuming, its end."""

import os
import signal
import time

import pytest
import toy_training
from toy_runs import assert_equal, finish, max_difference, metrics, run, start, summary, weights

from fiber_cli.checkpoints.directory import choose, resolve
from fiber_cli.distributed.folder_lock import locked
from fiber_cli.errors import EXIT_OK, EXIT_STOPPED, UserError
from fiber_cli.training import fit as loop

RECORDED = "step epoch lr loss toy_loss drawn images_per_second data_wait grad_norm skipped bad truncated"


def test_a_run_writes_what_it_should(plain):
    records = metrics(plain)
    assert [record["step"] for record in records] == list(range(1, 9))
    assert set(records[0]) == set(RECORDED.split())
    assert records[-1]["epoch"] == 2.0
    assert all(0 <= record["data_wait"] <= 100 for record in records)
    assert records[-1]["loss"] < records[0]["loss"]
    written = summary(plain)
    assert (written["steps"], written["images"], written["parameters"]["total"]) == (8, 64, 216)
    assert (plain / "curves.png").stat().st_size > 1000
    assert (plain / "checkpoints" / "latest").read_text().strip() == "step-000008"
    assert weights(plain)["temperature"].shape == ()
    assert "memory" not in weights(plain)


def test_the_learning_rate_follows_its_schedule(plain):
    # Two warm-up steps, then linearly down over the other six.
    expected = [1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert [record["lr"] for record in metrics(plain)] == pytest.approx([0.01 * factor for factor in expected])


@pytest.mark.parametrize(("stage", "world"), [(0, 1), (0, 2), (1, 2), (3, 2)])
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(tmp_path, stage, world):
    options = {"world": world, "dropout": 0.3}
    options["recipe"] = {"runtime.zero_stage": stage, "runtime.ema": None if stage == 3 else 0.9}
    options["recipe"]["log.save_in_background"] = False  # the steps are faster than any disk
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole_ranks = start(whole, **options)
    broken_ranks = start(broken, kill_at=6, **options)
    codes, log = finish(whole_ranks, whole)
    assert codes == [EXIT_OK] * world, log
    finish(broken_ranks, broken)
    assert (broken / "checkpoints" / "latest").read_text().strip() == "step-000004"
    assert len(metrics(broken)) >= 5
    codes, log = run(broken, resume=True, **options)
    assert codes == [EXIT_OK] * world, log
    assert "resumed at step 4" in log
    assert_equal(weights(broken), weights(whole))
    assert without_times(metrics(broken)) == without_times(metrics(whole))


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_that_is_killed_while_a_checkpoint_is_written_ends_with_other_bits(plain, tmp_path, world):
    recipe = {"log.save_every": 2}
    finish(start(tmp_path, kill_at=7, world=world, recipe=recipe), tmp_path)
    codes, log = run(tmp_path, resume=True, world=world, recipe=recipe)
    assert codes == [EXIT_OK] * world, log
    assert_equal(weights(tmp_path), weights(plain), atol=0 if world == 1 else 1e-5)
    assert not list((tmp_path / "checkpoints").glob(".*"))
    in_the_way = {"log.save_in_background": False}
    codes, log = run(tmp_path / "other", world=world, recipe=in_the_way)
    assert codes == [EXIT_OK] * world, log
    assert_equal(weights(tmp_path / "other"), weights(tmp_path))


#: Of the logged numbers, those of the clock.
TIMES = ("images_per_second", "data_wait")


def without_times(records):
    without = []
    for record in records:
        without.append(
            {name: value for name, value in record.items() if name not in ("images_per_second", "data_wait")}
        )
    return without


@pytest.mark.parametrize("world", [1, 2])
def test_sigterm_finishes_the_step_saves_and_can_be_resumed(plain, tmp_path, world):
    codes, log = run(tmp_path, world=world, signal_at=5)
    assert codes == [EXIT_STOPPED] * world, log
    assert "stopped at step 6" in log
    assert not (tmp_path / "summary.json").exists()
    codes, log = run(tmp_path, world=world, resume=True)
    assert codes == [EXIT_OK] * world, log
    assert_equal(weights(tmp_path), weights(plain), atol=0 if world == 1 else 1e-5)


def started(folder):
    """The process of a long run that has made its first step."""
    (rank,) = start(folder, recipe={"optim.steps": 100_000, "log.save_every": 100_000, "log.every": 1})
    file = folder / "metrics.jsonl"
    deadline = time.monotonic() + 60
    # The file is there before the run listens to signals, its first line is not.
    while not (file.exists() and file.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    return rank


def test_an_interrupt_stops_a_run(tmp_path):
    folder = tmp_path / "run"
    rank = started(folder)
    os.kill(rank.pid, signal.SIGINT)
    codes, log = finish([rank], folder)
    assert codes == [EXIT_STOPPED], log


def test_a_second_run_in_the_same_folder_is_refused(plain):
    codes, log = run(plain)
    assert codes == [1]
    assert "already holds a run" in log


def test_resume_without_a_checkpoint_starts_afresh(plain, tmp_path):
    codes, log = run(tmp_path, resume=True)
    assert codes == [EXIT_OK], log
    assert "holds no checkpoint yet: starting afresh" in log
    assert_equal(weights(tmp_path), weights(plain))


def test_resuming_with_another_recipe_or_world_is_refused(tmp_path):
    assert run(tmp_path, signal_at=2).codes == [EXIT_STOPPED]
    codes, log = run(tmp_path, resume=True, recipe={"optim.lr": 0.5, "runtime.clip": 1.0})
    assert codes == [1]
    assert "optim.lr: 0.01 in the run, 0.5 now" in log
    assert "runtime.clip: None in the run, 1.0 now" in log
    codes, log = run(tmp_path, resume=True, world=2, recipe={"runtime.micro_batch": 8, "runtime.global_batch": 16})
    assert codes[0] == 1
    assert "runtime.global_batch: 8 in the run, 16 now" in log
    # What only changes the log may differ.
    codes, log = run(tmp_path, resume=True, recipe={"log.every": 2})
    assert codes == [EXIT_OK], log


def test_the_best_checkpoint_is_kept(tmp_path):
    recipe = {
        "log.validate_every": 2,
        "log.keep_best": "itc/ir@1",
        "log.keep_last": 1,
        "log.save_every": 100,
        "data.val": [{"kind": "scenes", "count": 2}],
    }
    codes, log = run(tmp_path, recipe=recipe, validations=[10.0, 40.0, 30.0, 35.0])
    assert codes == [EXIT_OK], log
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-000004", "step-000008"]
    assert (folder / "best").read_text().strip() == "step-000004"
    assert summary(tmp_path)["best"] == {"metric": "itc/ir@1", "value": 40.0, "step": 4}
    assert summary(tmp_path)["metrics"] == {"itc/ir@1": 35.0}


def test_a_best_that_is_no_longer_kept_stands_for_the_run(tmp_path):
    recipe = {"log.validate_every": 2, "log.keep_best": "itc/ir@1", "data.val": [{"kind": "scenes", "count": 2}]}
    codes, log = run(tmp_path, recipe=recipe, validations=[40.0, 30.0, 30.0], signal_at=5)
    assert codes == [EXIT_STOPPED], log
    assert choose(tmp_path).path.name == "step-000002"
    recipe |= {"log.keep_best": None}
    codes, log = run(tmp_path, resume=True, recipe=recipe, validations=[35.0])
    assert codes == [EXIT_OK], log
    assert "resumed at step 6" in log
    assert str(choose(tmp_path)) == f"{tmp_path}/checkpoints/step-000008, the latest"


def test_validation_comes_more_or_less_than_once_an_epoch(tmp_path):
    """The toy's epochs have four steps."""
    recipe = {"log.validate_every": "epoch", "log.keep_best": "itc/ir@1", "data.val": [{"kind": "scenes", "count": 2}]}
    codes, log = run(tmp_path, recipe=recipe, validations=[10.0, 40.0])
    assert codes == [EXIT_OK], log
    validated = [record["step"] for record in metrics(tmp_path) if "itc/ir@1" in record]
    assert validated == [4, 8]


PLATEAU = {
    "log.validate_every": 1,
    "log.keep_best": "itc/ir@1",
    "log.stop_after": 3,
    "log.save_every": 100,
    "optim.schedule": "plateau",
    "optim.patience": 2,
    "optim.warmup": 0,
    "data.val": [{"kind": "scenes", "count": 2}],
}


def test_a_plateau_lowers_the_rate_and_then_ends_the_run(tmp_path):
    validations = [10.0, 9.0, 8.0, 40.0, 40.0, 39.0, 38.0, 50.0]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    codes, log = run(whole, recipe=PLATEAU, validations=validations)
    assert codes == [EXIT_OK], log
    assert "ended at step 7: 3 validations without a better itc/ir@1" in log
    rates = [0.01, 0.01, 0.01, 0.001, 0.001, 0.001, 0.0001]
    trained = [record for record in metrics(whole) if "lr" in record]
    assert [record["lr"] for record in trained] == pytest.approx(rates)
    assert (summary(whole)["steps"], summary(whole)["best"]["step"]) == (7, 4)
    # Where it stands is part of a checkpoint: interrupted during the sixth step, and when it has ended.
    codes, log = run(broken, recipe=PLATEAU, validations=validations, signal_at=5)
    assert codes == [EXIT_STOPPED], log
    codes, log = run(broken, recipe=PLATEAU, validations=validations[6:], resume=True)
    assert codes == [EXIT_OK], log
    assert "ended at step 7" in log
    assert_equal(weights(broken, 7), weights(whole, 7))
    # A run of a time when a setting did not exist goes on with its default.
    file = broken / "recipe.yaml"
    file.write_text(file.read_text().replace("  stop_after: 3\n", "").replace("  text_mult: 1.0\n", ""))
    codes, log = run(broken, recipe=PLATEAU, validations=validations[7:], resume=True)
    assert codes == [EXIT_OK], log
    assert "ended at step 7" in log


def test_saved_weights_are_those_of_the_moving_average(plain, tmp_path):
    assert run(tmp_path, recipe={"runtime.ema": 0.9}).codes == [EXIT_OK]
    assert max_difference(weights(tmp_path), weights(plain)) > 1e-4


def test_the_folder_is_removed_and_made_anew_with_half_of_the_files(tmp_path):
    folder = tmp_path / "run"
    rank = started(folder)
    folder.rename(tmp_path / "moved")
    rank.join(60)
    assert rank.exitcode == 1
    assert not folder.exists()
    log = (tmp_path / "moved" / "log0").read_text()
    assert "UserError" in log
    assert "metrics.jsonl was removed, moved or replaced" in log
    assert "Traceback" not in log


@pytest.fixture
def given(monkeypatch):
    """Calls of `fit` as far as the work, which fails; what it was given to start from."""
    requested = []

    def work(recipe, init_from, *, fresh):
        requested.append(init_from)
        raise UserError("far enough")

    monkeypatch.setattr(loop, "work", work)
    monkeypatch.setattr(loop, "init_from_env", lambda always: None)

    def fit(folder, **options):
        with pytest.raises(UserError) as error:
            loop.fit(toy_training.recipe(), folder, **options)
        return str(error.value), requested

    return fit


def test_a_start_that_failed_leaves_work_by_hand(given, tmp_path):
    weights = tmp_path / "weights" / "step-000001"
    weights.mkdir(parents=True)
    (weights / "config.json").touch()
    folder = tmp_path / "run"
    for options in ({}, {"init_from": weights}, {}, {"resume": True}, {"init_from": tmp_path / "none"}, {}):
        told, requested = given(folder, **options)
        assert told == "far enough" or "does not exist" in told
    # What an earlier start was given is not what the next one starts from.
    assert requested == [None, weights, None, None, None]
    assert sorted(path.name for path in folder.iterdir()) == [".fiber-lock", ".fiber-outputs"]


def test_two_runs_write_into_one_folder(given, tmp_path, monkeypatch):
    monkeypatch.setattr("fiber_cli.distributed.folder_lock.PATIENCE_SECONDS", 0.2)
    with locked(tmp_path):
        told, requested = given(tmp_path)
    assert f"is in use by process {os.getpid()}" in told
    assert not requested


@pytest.mark.parametrize("name", ["recipe.yaml", "metrics.jsonl", "summary.json", "curves.png", "init_from"])
def test_resuming_in_a_folder_without_a_run_writes_into_it(given, tmp_path, name):
    (tmp_path / name).write_text("mine")
    told, requested = given(tmp_path, resume=True)
    assert "holds no run that can go on" in told
    assert name in told
    assert not requested
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_run_killed_before_its_first_checkpoint_starts_again_from_the_same_weights(tmp_path, monkeypatch):
    requested = []

    def work(recipe, init_from, *, fresh):
        requested.append(resolve(init_from))
        raise UserError("far enough")

    monkeypatch.setattr(loop, "work", work)
    monkeypatch.setattr(loop, "init_from_env", lambda always: None)
    source = tmp_path / "weights" / "checkpoints"
    for step in ("step-000001", "step-000002"):
        (source / step).mkdir(parents=True)
        (source / step / "config.json").touch()
    (source / "latest").write_text("step-000001")
    with pytest.raises(UserError, match="far enough"):
        loop.fit(toy_training.recipe(), tmp_path / "run", init_from=tmp_path / "weights")
    (source / "latest").write_text("step-000002")
    with pytest.raises(UserError, match="far enough"):
        loop.fit(toy_training.recipe(), tmp_path / "run", resume=True)
    assert requested == [source / "step-000001"] * 2
