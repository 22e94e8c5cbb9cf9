"""Pipes in place of files."""

import os
import subprocess
import sys

import pytest

from fiber_cli.regular_files import check_regular, read_regular


def test_a_pipe_that_nobody_writes_into_keeps_its_reader_waiting(tmp_path):
    pipe = tmp_path / "annotations.json"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="a pipe or a device, not a file"):
        read_regular(pipe)
    with pytest.raises(OSError, match="a pipe or a device"):
        check_regular("/dev/zero")


def test_a_file_behind_a_link_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"content"


def test_what_a_shell_hands_over_is_refused():
    program = "from fiber_cli.regular_files import read_regular; print(read_regular('/dev/stdin'))"
    ended = subprocess.run([sys.executable, "-c", program], input=b"content", capture_output=True, check=True)
    assert ended.stdout == b"b'content'\n"


def test_what_is_missing_is_told_as_a_pipe(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "missing")
