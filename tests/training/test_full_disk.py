"""A full disk, at every size of the free space: one line, nothing half-written, and the run goes on after."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SIZES = ["4k", "12k", "20k", "28k", "36k", "48k", "72k", "96k", "128k", "160k"]
PROGRAM = Path(__file__).parents[1] / "full_disks.py"
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def can_mount(folder):
    """Whether this user may mount a disk of its own."""
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_full_disk_ends_in_a_traceback_or_leaves_what_is_half_written(tmp_path, world):
    if not can_mount(tmp_path):
        pytest.skip("no disk can be mounted here (unshare --user --mount)")
    command = [*NAMESPACE, sys.executable, str(PROGRAM), str(tmp_path), str(world), *SIZES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    trials = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(trials) == len(SIZES), done.stderr
    full = [trial for trial in trials if trial["codes"] != [0] * world]
    assert len(full) >= 7
    for trial in full:
        log = trial["log"]
        assert trial["codes"] == [1] * world, log
        assert "Traceback" not in log
        (told,) = [line for line in log.splitlines() if line.startswith("UserError: ")]
        assert "No space left on device" in told
        assert not [name for name in trial["left"] if ".tmp" in name], trial["left"]
        assert 0 not in trial["left"].values(), trial["left"]
        assert trial["whole"], "a line of metrics.jsonl is cut"
        assert trial["resumed"] == [0] * world, trial["again"]
        assert trial["ended"]
