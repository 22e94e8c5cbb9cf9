"""The guarded writer: what it replaces, what it leaves when it fails."""

import errno
import os
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
