"""A checkpoint that is written beside training: there when it is whole, and as the weights were when it was begun."""

import threading
from pathlib import Path

import pytest
import torch
from rank_processes import on_two_ranks

from fiber_cli.checkpoints import directory, saving
from fiber_cli.checkpoints.digests import check
from fiber_cli.checkpoints.host_copies import HostCopies
from fiber_cli.checkpoints.saving import NotWritten, Saving
from fiber_cli.checkpoints.weights import load_weights
from fiber_cli.checkpoints.writing import write_about, write_weights
from fiber_cli.distributed import collectives


def begin(run_dir: Path, step: int, weights, before=None) -> Saving:
    """A checkpoint begun beside training; before: called by the thread before it writes."""
    begun = Saving(run_dir, step)
    if collectives.is_main():
        write_about(begun.temporary, {"format": 2}, None, None)

    def write(folder: Path) -> None:
        if before is not None:
            before()
        if collectives.is_main():
            write_weights(folder, weights)
        (folder / "state" / f"{collectives.rank()}.json").write_text("{}")

    begun.start(write, beside=True)
    return begun


def test_training_waits_or_an_unfinished_checkpoint_looks_whole(tmp_path):
    go = threading.Event()
    earlier = saving.save(tmp_path, 1, config={}, weights={"w": torch.zeros(2)}, tokenizer=None)
    begun = begin(tmp_path, 2, {"w": torch.ones(2)}, go.wait)
    for _ in range(3):
        assert not begun.advance()
        assert directory.steps(tmp_path) == [earlier]
        assert directory.resolve(tmp_path) == earlier
    go.set()
    path = begun.finish()
    assert directory.resolve(tmp_path) == path
    check(path)
    assert load_weights(path)["w"].tolist() == [1, 1]
    assert sorted(each.name for each in path.parent.iterdir()) == ["latest", "step-000001", "step-000002"]


def test_what_training_changes_meanwhile_is_written():
    weight = torch.nn.Parameter(torch.arange(4.0))
    state = {"a": weight, "nested": [{"b": weight.data[:2]}, (weight.data, 3, "x")], "scale": {"value": 2.0}}
    copies = HostCopies()
    copied = copies.of(state)
    with torch.no_grad():
        weight += 1
    state["scale"]["value"] = 5.0
    assert copied["a"].tolist() == [0, 1, 2, 3]
    assert copied["nested"][0]["b"].tolist() == [0, 1]
    assert copied["nested"][1][1:] == (3, "x")
    assert copied["scale"] == {"value": 2.0}
    assert not copied["a"].requires_grad
    # One in memory, one copy: the weights of a checkpoint are also in its state.
    assert copied["nested"][1][0].data_ptr() == copied["a"].data_ptr()


def test_a_failed_write_is_no_error_or_leaves_a_part(tmp_path):
    def fail():
        raise OSError(28, "No space left on device")

    earlier = saving.save(tmp_path, 1, config={}, weights={"w": torch.zeros(2)}, tokenizer=None)
    begun = begin(tmp_path, 2, {"w": torch.ones(2)}, fail)
    with pytest.raises(NotWritten, match=r"step 2 could not be written: No space left"):
        begun.finish()
    assert directory.resolve(tmp_path) == earlier
    assert sorted(each.name for each in earlier.parent.iterdir()) == ["latest", "step-000001"]


def test_an_error_of_the_program_is_hidden(tmp_path):
    def fail():
        raise KeyError("a fault of ours")

    begun = begin(tmp_path, 2, {"w": torch.ones(2)}, fail)
    with pytest.raises(KeyError):
        begun.finish()


def test_an_abandoned_checkpoint_leaves_something(tmp_path):
    begun = begin(tmp_path, 2, {"w": torch.ones(2)})
    begun.abandon()
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("fails", ["nowhere", "on rank 1"])
def test_ranks_give_a_checkpoint_its_name_before_all_have_written(tmp_path, fails):
    ended = on_two_ranks(tmp_path, save_on_rank, FAILS=fails)
    assert [each.code for each in ended] == [0, 0]
    files = sorted(each.name for each in (tmp_path / "checkpoints").iterdir())
    if fails == "nowhere":
        assert [each.error for each in ended] == [None, None]
        assert files == ["latest", "step-000002"]
        check(tmp_path / "checkpoints" / "step-000002")
        digests = (tmp_path / "checkpoints" / "step-000002" / "SHA256SUMS").read_text()
        assert [line.split("  ")[1] for line in digests.splitlines()] == [
            "config.json",
            "model.safetensors",
            "state/0.json",
            "state/1.json",
        ]
    else:
        assert {each.kind for each in ended} == {"NotWritten"}
        assert all("No space left" in str(each.error) for each in ended)
        assert files == []


def save_on_rank(rank: int, folder: Path) -> None:
    import os
    import time

    def before():
        time.sleep(0.3 * rank)
        if rank and os.environ["FAILS"] == "on rank 1":
            raise OSError(28, "No space left on device")

    begun = begin(folder, 2, {"w": torch.ones(2)}, before)
    while not begun.advance():
        time.sleep(0.02)
