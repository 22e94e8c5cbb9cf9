"""The names of a run's files, and the run of a checkpoint."""

from pathlib import Path

from fiber_cli.checkpoints.run_files import run_of


def test_a_checkpoint_directory_tells_its_run():
    assert run_of(Path("runs/x/checkpoints/step-000001")) == Path("runs/x")
    assert run_of(Path("converted")) is None
