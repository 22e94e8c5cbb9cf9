"""The guarded writer: what it replaces, what it leaves when it fails."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from fiber_cli.errors import UserError
from fiber_cli.outputs import LEDGER, Outputs, write_problem

CONTENT = b"a user's file"


def fail(outputs: Outputs, file: Path, error: Exception) -> None:
    """Write half of a file, then fail."""
    with outputs.writing(file) as temporary:
        temporary.write_bytes(b"half")
        raise error


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {LEDGER}


def test_fiber_refuses_to_replace_its_own_earlier_output(tmp_path):
    file = tmp_path / "results.json"
    Outputs().write(file, "[1]")
    Outputs().write(file, "[2]")
    assert file.read_text() == "[2]"


@pytest.mark.parametrize("name", ["new\nline", "back\\slash", "carriage\rreturn", os.fsdecode(b"latin-\xe9")])
def test_a_file_of_an_odd_name_is_not_known_as_fibers_own(tmp_path, name):
    file = tmp_path / name
    Outputs().write(file, "[1]")
    Outputs().write(file, "[2]")
    assert file.read_text() == "[2]"


def test_a_file_of_the_user_is_replaced_without_being_asked_for(tmp_path):
    file = tmp_path / "results.json"
    file.write_bytes(CONTENT)
    with pytest.raises(UserError, match=r"results\.json: is there already.*--force"):
        Outputs().write(file, "[]")
    assert file.read_bytes() == CONTENT
    assert listing(tmp_path) == {"results.json"}
    Outputs(force=True).write(file, "[]")
    assert file.read_text() == "[]"


def test_an_output_that_the_user_has_changed_is_replaced(tmp_path):
    file = tmp_path / "results.json"
    Outputs().write(file, "[]")
    file.write_bytes(CONTENT)
    with pytest.raises(UserError, match="changed since"):
        Outputs().write(file, "[]")
    assert file.read_bytes() == CONTENT


def test_a_copy_of_an_output_passes_for_an_output_under_another_name(tmp_path):
    file = tmp_path / "results.json"
    Outputs().write(file, "[]")
    copy = tmp_path / "kept.json"
    copy.write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"kept\.json"):
        Outputs().write(copy, "[2]")


@pytest.mark.parametrize("make", [os.symlink, os.link], ids=["symbolic", "hard"])
@pytest.mark.parametrize("force", [False, True], ids=["", "force"])
def test_an_input_is_replaced_through_a_link(tmp_path, make, force):
    source = tmp_path / "x.jpg"
    source.write_bytes(CONTENT)
    link = tmp_path / "link.json"
    make(source, link)
    with pytest.raises(UserError, match="read by this command"):
        Outputs(force=force, inputs=[source]).write(link, "[]")
    assert source.read_bytes() == link.read_bytes() == CONTENT


def test_an_input_that_fiber_wrote_is_replaced(tmp_path):
    file = tmp_path / "x.png"
    Outputs().write(file, CONTENT)
    with pytest.raises(UserError, match="read by this command"):
        Outputs(force=True, inputs=[tmp_path / "." / "x.png"]).write(file, "[]")
    assert file.read_bytes() == CONTENT


def test_force_writes_through_a_link(tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_bytes(CONTENT)
    link = tmp_path / "out.json"
    link.symlink_to(victim)
    Outputs(force=True).write(link, "[]")
    assert victim.read_bytes() == CONTENT
    assert link.read_text() == "[]"
    assert not link.is_symlink()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("PytorchStreamWriter failed writing file data/3"),
        Exception("No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_half_a_file_or_a_traceback(tmp_path, error):
    file = tmp_path / "new" / "folder" / "out.json"
    with pytest.raises(UserError, match=r"out\.json: cannot be written \(.*free some space"):
        fail(Outputs(), file, error)
    assert listing(tmp_path) == set()


def test_a_failure_of_the_program_passes_for_one_of_the_disk(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fail(Outputs(), tmp_path / "out.json", ZeroDivisionError())
    assert listing(tmp_path) == set()


def test_a_failure_takes_away_what_was_there(tmp_path):
    file = tmp_path / "out.json"
    Outputs().write(file, "[1]")
    with pytest.raises(UserError, match="Input/output"):
        fail(Outputs(), file, OSError(errno.EIO, "Input/output error"))
    assert file.read_text() == "[1]"


def test_a_place_that_cannot_be_written_is_told_after_the_work(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    with pytest.raises(UserError, match="is not a folder"):
        Outputs().check(tmp_path / "file" / "out.json")
    with pytest.raises(UserError, match="is a folder"):
        Outputs().check(tmp_path)


def test_a_pipe_is_replaced_by_a_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    Outputs().write(pipe, "[]")
    assert os.read(reader, 10) == b"[]"
    os.close(reader)
    assert pipe.is_fifo()


def test_a_file_keeps_its_permissions_no_longer(tmp_path):
    file = tmp_path / "out.json"
    Outputs().write(file, "[1]")
    file.chmod(0o640)
    Outputs().write(file, "[2]")
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_reason_is_invented_for_an_error_of_the_program():
    assert write_problem(ValueError("no")) is None


def test_two_outputs_of_a_command_are_one_file(tmp_path):
    outputs = Outputs()
    outputs.reserve(tmp_path / "a.json")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("a.json", "A.JSON", "new/../a.json", "link/a.json"):
        (tmp_path / "new").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="two outputs of this command"):
            outputs.reserve(tmp_path / name)
    outputs.reserve(tmp_path / "b.json")


def test_a_file_that_changes_while_the_command_runs_is_replaced(tmp_path):
    file = tmp_path / "out.json"
    Outputs().write(file, "[1]")
    outputs = Outputs()
    outputs.check(file)
    file.write_bytes(CONTENT)
    with pytest.raises(UserError, match="changed since"):
        outputs.write(file, "[2]")
    other = tmp_path / "other.json"
    pending = outputs.begin(other)
    pending.temporary.write_text("[2]")
    other.write_bytes(CONTENT)
    with pytest.raises(UserError, match="is there already"):
        outputs.publish(pending)
    assert file.read_bytes() == other.read_bytes() == CONTENT


def test_what_another_process_wrote_is_not_known_as_fibers(tmp_path):
    outputs = Outputs()
    outputs.write(tmp_path / "mine.json", "[1]")
    Outputs().write(tmp_path / "out.json", "[1]")
    outputs.write(tmp_path / "out.json", "[2]")
    assert (tmp_path / "out.json").read_text() == "[2]"


def test_a_folder_that_was_removed_is_made_again_in_silence(tmp_path):
    outputs = Outputs()
    outputs.write(tmp_path / "out" / "1.json", "[1]")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(UserError, match="was removed while fiber wrote into it"):
        outputs.write(tmp_path / "out" / "2.json", "[2]")
    pending = Outputs().begin(tmp_path / "out" / "3.json")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(UserError, match="No such file"):
        outputs.publish(pending)
    assert listing(tmp_path) == set()


@pytest.mark.parametrize("make", ["link", "folder"])
def test_the_ledger_is_written_through_a_link(tmp_path, make):
    victim = tmp_path / "victim"
    victim.write_bytes(CONTENT)
    if make == "link":
        (tmp_path / LEDGER).symlink_to(victim)
    else:
        (tmp_path / LEDGER).mkdir()
    with pytest.raises(UserError, match=rf"{LEDGER}, where fiber keeps what it wrote, cannot be written"):
        Outputs().write(tmp_path / "out.json", "[1]")
    assert victim.read_bytes() == CONTENT
    assert listing(tmp_path) == {"victim"}


def test_a_ledger_cut_by_a_kill_loses_the_next_file(tmp_path):
    Outputs().write(tmp_path / "1.json", "[1]")
    ledger = tmp_path / LEDGER
    ledger.write_bytes(ledger.read_bytes()[:-5])
    for content in ("[2]", "[3]"):
        Outputs().write(tmp_path / "2.json", content)
    with pytest.raises(UserError, match="is there already"):
        Outputs().write(tmp_path / "1.json", "[4]")


def test_many_files_take_time_of_their_square(tmp_path):
    """The ledger is read once, and looked at once a file."""
    outputs = Outputs()
    reads = 0
    real = Path.read_bytes

    def read(path):
        nonlocal reads
        reads += path.name == LEDGER
        return real(path)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "read_bytes", read)
        for number in range(300):
            outputs.write(tmp_path / f"{number}.png", str(number))
        again = Outputs()
        for number in range(300):
            again.check(tmp_path / f"{number}.png")
            again.write(tmp_path / f"{number}.png", "new")
    assert reads <= 2


def test_an_equal_file_has_to_be_forced(tmp_path):
    file = tmp_path / "test.yaml"
    file.write_text("[]")
    Outputs().write(file, "[]")
    assert file.read_text() == "[]"


def test_files_that_belong_together_are_exchanged_in_part(tmp_path):
    names = ("truth.json", "results.json")
    for name in names:
        Outputs().write(tmp_path / name, "[1]")
    outputs = Outputs()
    pending = [outputs.begin(tmp_path / name) for name in names]
    for each in pending:
        each.temporary.write_text("[2]")
    pending[1].temporary.unlink()
    with pytest.raises(UserError, match=r"results\.json: cannot be written"):
        outputs.publish(*pending)
    for each in pending:
        each.drop()
    assert {(tmp_path / name).read_text() for name in names} == {"[1]"}
    assert listing(tmp_path) == set(names)


def test_an_open_file_of_the_process_is_replaced(tmp_path):
    target = tmp_path / "redirected"
    with target.open("w") as stream:
        link = tmp_path / "stdout"
        link.symlink_to(f"/dev/fd/{stream.fileno()}")
        if not link.exists():
            pytest.skip("no /dev/fd here")
        Outputs().write(link, "[]")
    assert link.is_symlink()
    assert target.read_text() == "[]"


@pytest.mark.parametrize("name", [LEDGER, ".fiber-lock", ".fiber-owner.json", "SHA256SUMS"])
def test_an_output_takes_the_place_of_what_fiber_keeps_for_itself(tmp_path, name):
    (tmp_path / name).write_bytes(CONTENT)
    with pytest.raises(UserError, match="keeps for itself"):
        Outputs(force=True).write(tmp_path / name, "[]")
    assert (tmp_path / name).read_bytes() == CONTENT


@pytest.mark.parametrize("place", ["", "tokenizer", "state/deepspeed", "new"])
def test_an_output_makes_a_checkpoint_another_one(tmp_path, place):
    checkpoint = tmp_path / "step-000004"
    (checkpoint / "state" / "deepspeed").mkdir(parents=True)
    (checkpoint / "tokenizer").mkdir()
    for name in ("SHA256SUMS", "model.safetensors"):
        (checkpoint / name).write_bytes(CONTENT)
    (tmp_path / "link").symlink_to(checkpoint)
    for folder in (checkpoint, tmp_path / "link"):
        with pytest.raises(UserError, match=r"lies in the checkpoint .*step-000004"):
            Outputs(force=True).check(folder / place / "out.json")
    Outputs().check(tmp_path / "out.json")
