"""What one process makes and others wait for."""

import pytest
from annotation_files import KINDS, entry_of

from fiber_cli.config.resolve import resolve_source
from fiber_cli.data import kept_sources
from fiber_cli.data.cache_folder import made_by_one
from fiber_cli.data.shard_files import open_shard
from fiber_cli.data.sources import open_source


@pytest.mark.parametrize(
    ("doing", "said"),
    [("a: another process is reading it", "a: another process is reading it; waiting for that\n"), ("", "")],
)
def test_what_is_waited_for_is_told_more_than_once_or_unasked(busy_locks, tmp_path, capsys, doing, said):
    with made_by_one(tmp_path / "made", doing):
        pass
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("kind", KINDS)
def test_annotations_are_waited_for_in_other_words(busy_locks, kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kept_sources, "LEAST_BYTES", 0)
    open_source(resolve_source(entry_of(kind, tmp_path), str(tmp_path)))
    assert ": another process is reading it; waiting for that\n" in capsys.readouterr().err


def test_a_shard_of_a_command_is_waited_for_in_other_words(busy_locks, tmp_path, capsys):
    (tmp_path / "a.tar").write_bytes(b"shard")
    path = f"pipe:cat {tmp_path}/a.tar"
    open_shard(path).close()
    assert f"{path}: another process is fetching it; waiting for that\n" in capsys.readouterr().err
