"""What stands beside shards of fiber's own."""

import pytest

from fiber_cli.data.shard_set import SET_FILE, ShardFile, ShardSet, is_whole_set, read_shard_set
from fiber_cli.errors import UserError

SHARDS = {"00000.tar": ShardFile(3, 10, "ab", (("s/1", "no picture"),)), "00001.tar": ShardFile(2, 5, "cd")}


def paths(tmp_path, *names):
    return [str(tmp_path / name) for name in names]


def test_the_file_says_another_thing_than_was_written(tmp_path):
    written = ShardSet({"source: the kind": "karpathy"}, 5, True, SHARDS)
    (tmp_path / SET_FILE).write_text(written.to_json())
    assert read_shard_set(tmp_path / SET_FILE) == written
    assert is_whole_set(paths(tmp_path, "00000.tar", "00001.tar"), [3, 2])
    assert not is_whole_set(paths(tmp_path, "00001.tar", "00000.tar"), [2, 3])
    assert not is_whole_set(paths(tmp_path, "00000.tar"), [3])
    assert not is_whole_set([*paths(tmp_path, "00000.tar"), str(tmp_path / "other" / "00001.tar")], [3, 2])
    assert not is_whole_set(paths(tmp_path / "other", "00000.tar"), [3])


@pytest.mark.parametrize("content", ["{}", '{"form": "other"}', "no json", '{"form": "fiber shards"}'])
def test_another_file_of_that_name_is_believed(tmp_path, content):
    (tmp_path / SET_FILE).write_text(content)
    with pytest.raises(UserError, match="fiber data shard"):
        is_whole_set(paths(tmp_path, "00000.tar"), [3])
