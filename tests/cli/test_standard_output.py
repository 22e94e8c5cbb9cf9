"""Standard output on a full disk."""

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="of Linux")
@pytest.mark.parametrize("argv", [["recipes"], ["recipes", "show", "tiny"], ["--version"], ["--help"]])
def test_a_full_disk_passes_for_success_or_ends_in_a_traceback(argv):
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "fiber_cli", *argv], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr == ("fiber: standard output: cannot be written (No space left on device: free some space)\n")


def test_a_closed_pipe_ends_in_a_traceback():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        ended = subprocess.run(
            [sys.executable, "-m", "fiber_cli", "recipes"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
