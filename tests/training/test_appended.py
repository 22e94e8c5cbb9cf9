"""A record is in the file or it is not."""

import pytest
from file_size_limit import files_up_to

from fiber_cli.training.appended import AppendedFile


@pytest.mark.parametrize("size", [5, 6, 7, 9])
def test_a_record_that_finds_no_room_is_half_written(tmp_path, size):
    with AppendedFile(tmp_path / "file") as file:
        file.write(b"first")
        with files_up_to(size), pytest.raises(OSError, match=r"large|No space"):
            file.write(b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


def test_a_file_without_a_record_stays(tmp_path):
    with AppendedFile(tmp_path / "new"):
        pass
    (tmp_path / "old").touch()
    with AppendedFile(tmp_path / "old"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_another_s_file_is_removed_in_its_place(tmp_path):
    with AppendedFile(tmp_path / "new"):
        (tmp_path / "new").unlink()
        (tmp_path / "new").touch()
    assert (tmp_path / "new").exists()
