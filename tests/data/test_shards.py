"""Samples of tar shards by number."""

import os
import pickle

import numpy as np
import pytest
from tar_files import shard_sample, write_tar

from fiber_cli.data import shards
from fiber_cli.data.source import BadSample
from fiber_cli.data.sources.webdataset import WebDatasetSource
from fiber_cli.errors import UserError


def test_webdataset_random_access(tars):
    source = WebDatasetSource(str(tars))
    assert len(source) == 12
    assert source.name == "cc"
    for i in np.random.default_rng(0).permutation(12):
        shard, row = divmod(int(i), 4)
        assert source.key(i) == f"{shard:05d}/{shard:05d}{row:04d}"
        assert source.captions(i) == (f"text {shard} {row}",)
        assert abs(source.image(i).getpixel((5, 5))[0] - (40 * shard + 10 * row)) <= 2
    copy = pickle.loads(pickle.dumps(source))  # with files open, as for a worker
    assert copy.captions(7) == ("text 1 3",)


def test_webdataset_order_keeps_shards_together(tmp_path, monkeypatch):
    for shard in range(6):
        write_tar(tmp_path / "s" / f"{shard}.tar", [m for i in range(5) for m in shard_sample(f"{shard}-{i}")])
    source = WebDatasetSource(f"{tmp_path}/s/*.tar")
    monkeypatch.setattr(shards, "_WINDOW", 2)
    orders = [source.order(np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert (orders[0] == orders[1]).all()
    assert (orders[0] != orders[2]).any()
    for order in orders:
        assert sorted(order) == list(range(30))
        shard = (order // 5).reshape(3, 10)
        assert all(len(set(window)) == 2 for window in shard)  # each shard in one window only
        assert any((np.diff(window) != 0).sum() > 1 for window in shard)  # and mixed within it
    assert list(orders[0] // 5) != sorted(orders[0] // 5)


def test_webdataset_that_changes_under_way(tars):
    source = WebDatasetSource(str(tars))
    source.image(11)
    os.truncate(tars / "00002.tar", 2000)
    with pytest.raises(BadSample, match="became shorter"):
        source.image(11)
    os.remove(tars / "00001.tar")
    with pytest.raises(BadSample, match="No such file"):
        source.captions(5)


def test_open_files_are_bounded(tars, monkeypatch):
    monkeypatch.setattr(shards, "_OPEN_FILES", 2)
    source = WebDatasetSource(str(tars))
    for i in (0, 4, 8, 1, 9, 5):
        assert source.captions(i) == (f"text {i // 4} {i % 4}",)
        assert len(source._open) <= 2


def test_shards_without_samples_are_told(tmp_path):
    write_tar(tmp_path / "b.tar", [("readme.md", b"nothing of ours")])
    with pytest.raises(
        UserError, match=r"no sample in 1 shards; an image .* needed; 1 members have the endings \.md 1$"
    ):
        WebDatasetSource(str(tmp_path / "b.tar"))
    write_tar(tmp_path / "c.tar", [("img.1.jpg", b""), ("img.2.jpg", b""), ("img.1.txt", b"")])
    with pytest.raises(
        UserError, match=r"3 members have the endings .*ends at its first dot, as in webdataset: rename"
    ):
        WebDatasetSource(str(tmp_path / "c.tar"))
