"""Checkpoint directories: whole or not at all, strict loading, pruning, position-bias resizing."""

import errno
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fiber_cli.checkpoints import directory as checkpoint
from fiber_cli.errors import UserError


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.body = nn.Linear(3, width)
        self.head = nn.Linear(width, 2)
        self.tied = self.body
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


class Tokenizer:
    def save_pretrained(self, folder):
        from pathlib import Path

        Path(folder).mkdir()
        (Path(folder) / "vocab.json").write_text("{}")


def save(folder, step, net=None, **options):
    weights = checkpoint.named_weights(net or Net())
    options = {"config": {"task": {"name": "toy"}}, "weights": weights, "tokenizer": Tokenizer(), **options}
    return checkpoint.save(folder, step, **options)


def test_saved_and_loaded_weights_are_equal(tmp_path):
    torch.manual_seed(1)
    net = Net()
    path = save(tmp_path, 400, net, write_state=lambda folder: (folder / "shard").write_text("x"))
    assert path == tmp_path / "checkpoints" / "step-000400"
    assert sorted(p.name for p in path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "state",
        "tokenizer",
    ]
    assert (path / "state" / "shard").read_text() == "x"
    assert checkpoint.load_config(path) == {"format": 1, "task": {"name": "toy"}}
    # The tied layer is stored once, the scratch buffer not at all.
    assert set(load_file(path / "model.safetensors")) == {
        "body.weight", "body.bias", "head.weight", "head.bias", "count"
    }  # fmt: skip
    other = Net()
    checkpoint.load_into(other, checkpoint.load_weights(path))
    for ours, theirs in zip(other.state_dict().values(), net.state_dict().values()):
        assert torch.equal(ours, theirs)


def test_weights_are_stored_as_float32(tmp_path):
    net = Net().bfloat16()
    path = save(tmp_path, 1, net)
    stored = checkpoint.load_weights(path)
    assert {v.dtype for v in stored.values()} == {torch.float32, torch.int64}
    assert torch.equal(stored["head.weight"], net.head.weight.detach().float())


def test_every_way_to_name_a_checkpoint(tmp_path):
    save(tmp_path, 4)
    path = save(tmp_path, 8)
    folder = tmp_path / "checkpoints"
    for name in (path, folder, tmp_path, folder / "latest"):
        assert checkpoint.resolve(name) == path
    checkpoint.replace(folder / "best", "step-000004")
    assert checkpoint.resolve(folder / "best") == folder / "step-000004"


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_no_checkpoint_is_a_clear_error(tmp_path, name):
    with pytest.raises(UserError, match="step directory"):
        checkpoint.resolve(tmp_path / name)


def test_latest_that_names_nothing_lists_what_is_there(tmp_path):
    save(tmp_path, 4)
    checkpoint.replace(tmp_path / "checkpoints" / "latest", "step-000009")
    with pytest.raises(UserError, match="names step-000009.*step-000004"):
        checkpoint.resolve(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_weights_cut_short_are_a_clear_error(tmp_path, keep):
    file = save(tmp_path, 1) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="model.safetensors cannot be read.*only in part"):
        checkpoint.load_weights(file.parent)


def test_missing_weights_and_config_are_clear_errors(tmp_path):
    path = save(tmp_path, 1)
    (path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="model.safetensors cannot be read .*No such file.*it is missing"):
        checkpoint.load_weights(path)
    (path / "config.json").write_text('{"format": 1, "mo')
    with pytest.raises(UserError, match="config.json is damaged"):
        checkpoint.load_config(path)
    (path / "config.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UserError, match="format version 99"):
        checkpoint.load_config(path)
    (path / "config.json").unlink()
    with pytest.raises(UserError, match="config.json cannot be read"):
        checkpoint.load_config(path)


def full_disk(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


class FullTokenizer:
    save_pretrained = staticmethod(full_disk)


@pytest.mark.parametrize("full", [{"tokenizer": FullTokenizer()}, {"write_state": full_disk}])
def test_no_space_left_leaves_the_earlier_checkpoint(tmp_path, full):
    earlier = save(tmp_path, 4)
    before = (earlier / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="step 8 could not be written: No space left on device.*--resume"):
        save(tmp_path, 8, **full)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["latest", "step-000004"]
    assert checkpoint.resolve(tmp_path) == earlier
    assert (earlier / "model.safetensors").read_bytes() == before


def test_latest_moves_after_the_checkpoint_is_in_its_place(tmp_path, monkeypatch):
    earlier = save(tmp_path, 4)
    monkeypatch.setattr(checkpoint.Path, "rename", full_disk)
    with pytest.raises(UserError, match="could not be written"):
        save(tmp_path, 8)
    assert checkpoint.resolve(tmp_path) == earlier and checkpoint.steps(tmp_path) == [earlier]


def test_a_kill_while_writing_leaves_no_checkpoint_that_looks_whole(tmp_path):
    earlier = save(tmp_path, 4)

    def kill(folder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 8, write_state=kill)
    assert checkpoint.steps(tmp_path) == [earlier]
    assert checkpoint.resolve(tmp_path) == earlier
    # The next one goes over what was left.
    assert checkpoint.resolve(save(tmp_path, 8).parent).name == "step-000008"


def test_pruning_keeps_the_newest_and_the_best(tmp_path):
    for step in (1, 2, 3, 10, 20):
        save(tmp_path, step)
    (tmp_path / "checkpoints" / ".step-000030.tmp").mkdir()
    checkpoint.prune(tmp_path, 2, "step-000002")
    assert [p.name for p in checkpoint.steps(tmp_path)] == ["step-000002", "step-000010", "step-000020"]
    assert not list((tmp_path / "checkpoints").glob(".step*"))
    checkpoint.prune(tmp_path, 1, None)
    assert [p.name for p in checkpoint.steps(tmp_path)] == ["step-000020"]


def test_loading_lists_everything_that_does_not_fit():
    net = Net()
    weights = checkpoint.float32(checkpoint.named_weights(Net(width=5)))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    weights["extra.weight"] = weights.pop("head.bias")
    with pytest.raises(UserError) as caught:
        checkpoint.load_into(net, weights)
    message = str(caught.value)
    assert "1 missing, 1 unexpected, 3 of another shape" in message
    assert "missing: head.bias (2,)" in message and "unexpected: extra.weight (2,)" in message
    assert "shape: body.weight (5, 3) in the weights, (4, 3) in the model" in message
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items()), "nothing may have been copied"


def test_expected_differences_are_allowed_by_prefix():
    net, weights = Net(), checkpoint.float32(checkpoint.named_weights(Net()))
    weights["mlm.bias"], head = torch.zeros(3), net.head.weight.clone()
    del weights["head.weight"], weights["head.bias"]
    checkpoint.load_into(net, weights, expect_missing=("head.",), expect_unexpected=("mlm.",))
    assert torch.equal(net.body.weight, weights["body.weight"]) and torch.equal(net.head.weight, head)
    with pytest.raises(UserError, match="2 missing, 0 unexpected"):
        checkpoint.load_into(net, weights, expect_missing=("heads",), expect_unexpected=("mlm.",))


def test_position_biases_resize_as_published(shared):
    tensors = load_file(shared / "golden" / "swin_resize.safetensors")
    inputs = [name for name in tensors if name.startswith("in.")]
    assert len(inputs) > 5
    for name in inputs:
        after = int(name.split(".")[1].split("to")[1])
        ours = checkpoint.resize_position_bias(tensors[name], after // 32)
        torch.testing.assert_close(ours, tensors["out." + name.removeprefix("in.")], atol=1e-6, rtol=0)


def test_position_biases_are_fitted_to_the_model():
    net = nn.ModuleDict({"attn": nn.Module(), "other": nn.Linear(2, 2)})
    net["attn"].relative_position_bias_table = nn.Parameter(torch.zeros(49, 2))
    weights = {k: v.clone() for k, v in checkpoint.named_weights(net).items()}
    weights["attn.relative_position_bias_table"] = torch.full((25, 2), 0.5)
    fitted = checkpoint.fit_position_biases(weights, net)
    checkpoint.load_into(net, fitted)
    torch.testing.assert_close(net["attn"].relative_position_bias_table.detach(), torch.full((49, 2), 0.5))
    assert fitted["other.weight"] is weights["other.weight"]
