"""Where a run may begin, and where one may go on."""

import shutil

import pytest
import toy_training

from fiber_cli.errors import UserError
from fiber_cli.outputs import Outputs
from fiber_cli.training.run_folder import check_output, is_new, read_init_from, write_init_from

RECORD = '{"step": 3, "loss": 1.0}\n'


@pytest.fixture
def started(tmp_path):
    """What a start of fiber's leaves that came to no step."""
    folder = tmp_path / "run"
    (tmp_path / "weights").mkdir()
    write_init_from(folder, tmp_path / "weights")
    Outputs().write(folder / "recipe.yaml", toy_training.recipe().to_yaml())
    (folder / ".fiber-lock").touch()
    (folder / ".fiber-owner.json").write_text("{}")
    (folder / "metrics.jsonl").touch()
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / "events.out.tfevents.123.host.1").touch()
    (folder / "checkpoints" / ".step-000004.tmp" / "state").mkdir(parents=True)
    (folder / "wandb" / "run-1").mkdir(parents=True)
    return folder


def test_a_start_that_failed_wants_work_by_hand(started, tmp_path):
    for resume in (False, True):
        assert check_output(started, resume=resume) is False
        assert check_output(tmp_path / "nowhere", resume=resume) is False
    assert is_new(started)


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "picture.png", "summary.json", "curves.png", ".hidden", "tensorboard/mine", "checkpoints/mine"],
)
def test_a_user_s_file_is_written_over_by_a_new_run(started, name):
    (started / name).write_text("mine")
    with pytest.raises(UserError, match=f"is not empty, it holds {name.split('/')[0]}: pass --resume"):
        check_output(started, resume=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("recipe.yaml", "# mine\nname: x\n"),
        ("metrics.jsonl", "epoch,loss\n1,2\n"),
        ("summary.json", "{}"),
        ("curves.png", "a picture"),
        ("init_from", "ImageNet weights\n"),
        ("checkpoints/model.pt", "weights"),
        ("tensorboard/notes", "mine"),
    ],
)
def test_resuming_writes_over_a_user_s_files(tmp_path, name, content):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    with pytest.raises(UserError, match=f"no run that can go on.*{name.split('/')[0]}"):
        check_output(tmp_path, resume=True)
    with pytest.raises(UserError, match="is not empty"):
        check_output(tmp_path, resume=False)


def test_a_recipe_changed_since_a_start_passes_for_fiber_s(started):
    with (started / "recipe.yaml").open("a") as file:
        file.write("# mine\n")
    with pytest.raises(UserError, match=r"holds recipe\.yaml"):
        check_output(started, resume=False)


def test_a_run_killed_before_its_first_checkpoint_is_begun_anew_in_silence(started):
    (started / "metrics.jsonl").write_text(RECORD)
    with pytest.raises(UserError, match=r"holds metrics\.jsonl: pass --resume"):
        check_output(started, resume=False)
    assert check_output(started, resume=True) is False
    assert not is_new(started)


def test_a_run_of_an_earlier_version_cannot_go_on(started):
    """It had no list of what it wrote."""
    (started / ".fiber-outputs").unlink()
    (started / "metrics.jsonl").write_text(RECORD)
    assert check_output(started, resume=True) is False
    (started / "log.txt").write_text("the user's, beside the run")
    assert check_output(started, resume=True) is False


@pytest.mark.parametrize("begun", ["latest", "best", "step-000004/config.json"])
def test_a_run_is_begun_anew_over_its_checkpoints(tmp_path, begun):
    file = tmp_path / "checkpoints" / begun
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(UserError, match="already holds a run: pass --resume"):
        check_output(tmp_path, resume=False)
    assert check_output(tmp_path, resume=True) is True


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_in_the_place_of_a_folder_is_a_traceback(tmp_path, resume):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(UserError, match="checkpoints is not a folder"):
        check_output(tmp_path, resume=resume)
    with pytest.raises(UserError, match="checkpoints is not a folder"):
        check_output(tmp_path / "checkpoints", resume=resume)
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(UserError, match="link is not a folder"):
        check_output(tmp_path / "link", resume=resume)


def test_the_first_weights_are_forgotten_or_of_another_start(started, tmp_path):
    assert read_init_from(started) == tmp_path / "weights"
    write_init_from(started, None)
    assert read_init_from(started) is None


@pytest.mark.parametrize("content", [b"", b"weights\n", b"\xff\xfe", b"/a\n/b\n", b"/a\0b\n", b"x" * 100_000])
def test_a_damaged_note_of_the_first_weights_is_followed(started, content):
    (started / "init_from").write_bytes(content)
    with pytest.raises(UserError, match="init_from is damaged"):
        read_init_from(started)


def test_a_note_that_leads_nowhere_starts_from_random_weights(started, tmp_path):
    shutil.rmtree(tmp_path / "weights")
    with pytest.raises(UserError, match=r"init_from names .*weights, which is not there"):
        read_init_from(started)
    (started / "init_from").unlink()
    (started / "init_from").mkdir()
    with pytest.raises(UserError, match="init_from cannot be read"):
        read_init_from(started)
