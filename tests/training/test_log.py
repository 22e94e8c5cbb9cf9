"""What a run writes, as rank 0 of one."""

import json
import sys

import pytest
import toy_training

from fiber_cli.errors import UserError
from fiber_cli.training.log import RunLog


@pytest.fixture
def log_of(tmp_path):
    """Makes the log of a run in `tmp_path`; options: see `RunLog`, changes: of the recipe."""

    def make(*, start=0, total=4, changes=None):
        return RunLog(tmp_path, toy_training.recipe(changes), start=start, total=total)

    return make


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_numbers_that_are_not_finite_become_null(log_of, tmp_path):
    with log_of() as log:
        log.write({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "lr": 0.5}, show=False)
    assert lines(tmp_path) == [{"step": 1, "loss": None, "grad_norm": None, "lr": 0.5}]


def test_lines_past_the_start_are_dropped(log_of, tmp_path):
    with log_of() as log:
        for step in (1, 2, 3):
            log.write({"step": step}, show=False)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # cut by a kill
    with log_of(start=2) as log:
        log.write({"step": 3, "again": 1}, show=False)
    assert lines(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": 1}]


def test_the_line_shows_losses_first_and_the_time_left(log_of, capsys):
    record = {"step": 1, "lr": 1e-3, "itc_loss": 2.0, "loss": 3.0, "grad_norm": 1.0, "skipped": 0}
    with log_of() as log:
        log.write(record | {"images_per_second": 4.0})
        log.say("a line")
    # Three steps of 8 images at 4 a second.
    expected = "step 1/4  itc_loss 2  loss 3  lr 0.001  images_per_second 4  skipped 0  ETA 0:00:06"
    assert capsys.readouterr().err.splitlines() == [expected, "a line"]


def test_the_resolved_recipe_is_written_first(log_of, tmp_path):
    with log_of(changes={"optim.lr": 0.25}):
        assert (tmp_path / "recipe.yaml").read_text() == toy_training.recipe({"optim.lr": 0.25}).to_yaml()


def test_the_end_writes_summary_and_curves(log_of, tmp_path):
    with log_of() as log:
        log.write({"step": 1, "loss": 3.0, "lr": 0.1, "images_per_second": 4.0})
        log.finish({"steps": 1})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"steps": 1}
    assert (tmp_path / "curves.png").is_file()


def test_tensorboard_gets_the_finite_numbers(log_of, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with log_of(changes={"log.tensorboard": True}) as log:
        log.write({"step": 1, "loss": 3.0, "lr": float("nan")}, show=False)
        log.write({"step": 2, "loss": 2.0}, show=False)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 3.0), (2, 2.0)]
    assert events.Tags()["scalars"] == ["loss"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "."])
def test_files_that_are_gone_are_made_anew_without_a_word(log_of, tmp_path, name):
    with log_of() as log:
        log.write({"step": 1}, show=False)
        gone = tmp_path / name
        moved = tmp_path.with_name(f"moved-{tmp_path.name}")
        gone.resolve().rename(moved)
        for write in (log.check_folder, lambda: log.write({"step": 2}, show=False), lambda: log.finish({})):
            with pytest.raises(UserError, match=r"metrics\.jsonl was removed, moved or replaced while"):
                write()
        assert not (tmp_path / "metrics.jsonl").exists()
        tmp_path.mkdir(exist_ok=True)
        (tmp_path / "metrics.jsonl").write_text("another's")
        with pytest.raises(UserError, match="replaced"):
            log.write({"step": 2}, show=False)
    assert (tmp_path / "metrics.jsonl").read_text() == "another's"


def test_lines_that_stay_are_rewritten(log_of, tmp_path):
    """As they stand, whatever their form."""
    kept = '{ "step":1,"loss": 1.50 }\n'
    (tmp_path / "metrics.jsonl").write_text(kept + '{"step": 2}\n')
    with log_of(start=1) as log:
        log.write({"step": 2, "again": 1}, show=False)
    assert (tmp_path / "metrics.jsonl").read_text() == kept + '{"step": 2, "again": 1}\n'


@pytest.mark.parametrize("line", ["hello", "[1]", '{"note": "lower the rate"}', '{"step": "2"}'])
def test_lines_of_others_are_thrown_away(log_of, tmp_path, line):
    content = f'{{"step": 1}}\n{line}\n{{"step": 2}}\n'
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: not a record"):
        log_of(start=1)
    assert (tmp_path / "metrics.jsonl").read_text() == content


@pytest.mark.parametrize("name", ["summary.json", "curves.png"])
def test_a_user_s_file_is_overwritten_at_the_end(log_of, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name} is not fiber's"):
        log_of()
    assert (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_missing_package_leaves_files(log_of, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="wandb is not installed"):
        log_of(changes={"log.wandb": "project", "log.tensorboard": True})
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_board_is_a_traceback(log_of, tmp_path):
    (tmp_path / "tensorboard").write_text("mine")
    with pytest.raises(UserError, match="tensorboard is not a folder"):
        log_of(changes={"log.tensorboard": True})
    assert not (tmp_path / "metrics.jsonl").exists()


def test_what_a_kill_left_of_a_checkpoint_keeps_the_disk_full(log_of, tmp_path):
    (tmp_path / "checkpoints" / ".step-000004.tmp" / "state").mkdir(parents=True)
    with log_of():
        assert list((tmp_path / "checkpoints").iterdir()) == []


def test_other_ranks_write_nothing(log_of, tmp_path, monkeypatch):
    monkeypatch.setattr("fiber_cli.training.log.is_main", lambda: False)
    with log_of() as log:
        log.advance()
        log.say("a line")
        log.write({"step": 1, "loss": 1.0})
        log.finish({"steps": 1})
    assert list(tmp_path.iterdir()) == []
