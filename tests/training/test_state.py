"""state/run.json: what is not of its form is told, whatever reads it first."""

import json

import pytest

from fiber_cli.distributed import collectives
from fiber_cli.errors import UserError
from fiber_cli.training.progress import Progress
from fiber_cli.training.state import RankState, RunState, local_state, read_state

BEST = {"metric": "itc/ir@1", "value": 40.0, "step": 4}


@pytest.fixture
def folder(tmp_path):
    """The state folder of a checkpoint."""
    state = RunState(
        Progress(step=8, seconds=2, best=BEST, metrics={"itc/ir@1": 35.0}), [RankState({"seen": 8, "bad": 1}, 2)], None
    )
    folder = tmp_path / "checkpoints" / "step-000008" / "state"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(state.to_json())
    return folder


def test_what_is_read_is_not_what_was_written(folder):
    state = read_state(folder)
    assert state.progress == Progress(step=8, seconds=2, best=BEST, metrics={"itc/ir@1": 35.0})
    assert state.ranks == [RankState({"seen": 8, "bad": 1}, 2)]


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"3", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"progress": 1'])
def test_content_of_another_form_is_a_traceback(folder, content):
    (folder / "run.json").write_bytes(content)
    with pytest.raises(
        UserError, match=r"state cannot be read .*; write the name of an earlier checkpoint into .*latest"
    ):
        read_state(folder)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["progress"], []),
        (["progress"], None),
        (["progress", "step"], "8"),
        (["progress", "step"], 8.5),
        (["progress", "step"], -1),
        (["progress", "step"], True),
        (["progress", "seconds"], "2"),
        (["progress", "drops"], None),
        (["progress", "best"], "step-000004"),
        (["progress", "best"], {"metric": 1, "value": 2, "step": 3}),
        (["progress", "best"], BEST | {"step": "4"}),
        (["progress", "metrics"], [1]),
        (["progress", "metrics"], {"a": "1"}),
        (["progress", "other"], 1),
        (["ranks"], None),
        (["ranks"], [8]),
        (["ranks"], [{"bad": {"seen": "8", "bad": 0}, "truncated": 0}]),
        (["ranks"], [{"bad": {"seen": 8}, "truncated": 0}]),
        (["scaler"], [1]),
        (["data"], ["60"]),
        (["data"], {"data.train[0]: the number of samples": 60}),
    ],
)
def test_a_value_of_another_type_shows_later(folder, path, value):
    content = json.loads((folder / "run.json").read_text())
    section = content
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = value
    (folder / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="state cannot be read"):
        read_state(folder)


def test_a_state_that_is_no_folder_is_a_traceback(folder):
    (folder / "run.json").unlink()
    folder.rmdir()
    with pytest.raises(UserError, match="state is not a folder, so that the run cannot go on"):
        read_state(folder)
    folder.write_text("a file")
    with pytest.raises(UserError, match="state is not a folder"):
        read_state(folder)


def test_what_ranks_have_counted_is_lost_on_others(monkeypatch):
    ranks = [RankState({"seen": 8, "bad": 1}, 2), RankState({"seen": 7, "bad": 0}, 3)]
    none = RankState({"seen": 0, "bad": 0}, 0)
    for world, expected in ((2, ranks), (1, [RankState({"seen": 15, "bad": 1}, 5)])):
        monkeypatch.setattr(collectives, "world_size", lambda world=world: world)
        for rank, local in enumerate(expected):
            monkeypatch.setattr(collectives, "rank", lambda rank=rank: rank)
            assert local_state(ranks) == local
    monkeypatch.setattr(collectives, "world_size", lambda: 3)
    monkeypatch.setattr(collectives, "rank", lambda: 1)
    assert local_state(ranks) == none
