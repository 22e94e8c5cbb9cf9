"""Fixtures of the tests of data."""

from pathlib import Path

import pytest
from tar_files import shard_sample, write_tar
from training_batches import folder_and_shards

from fiber_cli.data.mixing import Mixture


@pytest.fixture(autouse=True)
def index_folder(tmp_path, monkeypatch) -> Path:
    """Shard indices of a test stay in its own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FIBER_CACHE", str(tmp_path / "cache" / "fiber"))
    return tmp_path / "cache" / "fiber" / "shards"


@pytest.fixture
def tars(tmp_path) -> Path:
    """Three shards of four samples; the red value tells them apart."""
    for shard in range(3):
        members = []
        for i in range(4):
            members += shard_sample(f"{shard:05d}{i:04d}", f"text {shard} {i}", (40 * shard + 10 * i, 0, 0))
        write_tar(tmp_path / "cc" / f"{shard:05d}.tar", members)
    return tmp_path / "cc"


@pytest.fixture
def mixture(tmp_path, index_folder) -> Mixture:
    """Real files, some of them damaged: a folder of images once, and shards of the same one and a half times."""
    return Mixture(folder_and_shards(tmp_path), [1, 1.5], seed=5)
