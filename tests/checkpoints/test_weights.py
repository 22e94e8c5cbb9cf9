"""Weights by name: nothing lost, nothing twice, nothing taken that does not fit, nothing unpickled but tensors."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fiber_cli.checkpoints import saving, weights
from fiber_cli.errors import UserError


class Net(nn.Module):
    """Two layers, one of them under two names, and buffers of both kinds."""

    def __init__(self, width=4):
        super().__init__()
        self.body = nn.Linear(3, width)
        self.head = nn.Linear(width, 2)
        self.tied = self.body
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


def save(folder, net):
    return saving.save(folder, 400, config={}, weights=weights.named_weights(net), tokenizer=None)


def test_saved_and_loaded_weights_are_equal(tmp_path):
    torch.manual_seed(1)
    net = Net()
    path = save(tmp_path, net)
    # The tied layer is stored once, the scratch buffer not at all.
    stored = {"body.weight", "body.bias", "head.weight", "head.bias", "count"}
    assert set(load_file(path / "model.safetensors")) == stored
    other = Net()
    weights.load_into(other, weights.load_weights(path))
    for ours, theirs in zip(other.state_dict().values(), net.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_are_stored_as_float32(tmp_path):
    net = Net().bfloat16()
    stored = weights.load_weights(save(tmp_path, net))
    assert {value.dtype for value in stored.values()} == {torch.float32, torch.int64}
    assert torch.equal(stored["head.weight"], net.head.weight.detach().float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_narrower_weights_are_widened_exactly(tmp_path, dtype):
    stored = {"head.weight": torch.tensor([[0.1, -3.0]]).to(dtype), "count": torch.tensor(3)}
    save_file(stored, tmp_path / "model.safetensors")
    loaded = weights.load_weights(tmp_path)
    assert loaded["head.weight"].dtype == torch.float32
    assert torch.equal(loaded["head.weight"], stored["head.weight"].float())
    assert loaded["count"].dtype == torch.int64


def test_wider_weights_are_not_cut(tmp_path):
    save_file({"head.weight": torch.zeros(2, dtype=torch.float64)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model.safetensors: head.weight is torch.float64, not float32 or a narrower"):
        weights.load_weights(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_weights_cut_short_are_a_clear_error(tmp_path, keep):
    file = save(tmp_path, Net()) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model.safetensors cannot be read.*only in part"):
        weights.load_weights(file.parent)


def test_missing_weights_are_a_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"model.safetensors cannot be read .*No such file.*it is missing"):
        weights.load_weights(tmp_path)


def test_loading_lists_everything_that_does_not_fit():
    net = Net()
    misfits = weights.float32(weights.named_weights(Net(width=5)))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    misfits["extra.weight"] = misfits.pop("head.bias")
    with pytest.raises(UserError) as caught:
        weights.load_into(net, misfits)
    message = str(caught.value)
    assert "1 missing, 1 unexpected, 3 of another shape" in message
    assert "missing: head.bias (2,)" in message
    assert "unexpected: extra.weight (2,)" in message
    assert "shape: body.weight (5, 3) in the weights, (4, 3) in the model" in message
    for name, value in net.state_dict().items():
        assert torch.equal(before[name], value), "nothing may have been copied"


def test_expected_differences_are_allowed_by_prefix():
    net = Net()
    others = weights.float32(weights.named_weights(Net()))
    others["mlm.bias"] = torch.zeros(3)
    del others["head.weight"], others["head.bias"]
    head = net.head.weight.clone()
    unmatched = weights.load_into(net, others, expect_missing=("head.",), expect_unexpected=("mlm.",))
    assert unmatched == (["head.bias", "head.weight"], ["mlm.bias"])
    assert torch.equal(net.body.weight, others["body.weight"])
    assert torch.equal(net.head.weight, head)
    with pytest.raises(UserError, match="2 missing, 0 unexpected"):
        weights.load_into(net, others, expect_missing=("heads",), expect_unexpected=("mlm.",))


def test_only_plain_tensors_are_unpickled(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    torch.save({"state_dict": {"a": torch.ones(1)}, "extra": Payload()}, tmp_path / "unsafe.ckpt")
    with pytest.raises(UserError, match="not readable") as told:
        weights.read_torch_file(tmp_path / "unsafe.ckpt")
    for how_to_run_it in ("weights_only", "can still be loaded", "safe_globals"):
        assert how_to_run_it not in str(told.value)
    assert "names io.open, which is not called" in str(told.value)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("wrap", [{"state_dict": {"module.a": torch.ones(1)}}, {"model": {"a": torch.ones(1)}}])
def test_a_state_dict_is_found_in_the_usual_wrappings(tmp_path, wrap):
    torch.save(wrap, tmp_path / "wrapped.ckpt")
    assert weights.read_torch_file(tmp_path / "wrapped.ckpt").keys() == {"a"}


def test_torch_files_that_hold_no_weights_are_clear_errors(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "whole.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "whole.ckpt").read_bytes()[:100])
    torch.save([torch.ones(1)], tmp_path / "list.ckpt")
    for name, problem in (("cut", "not readable"), ("none", "no such checkpoint file"), ("list", "no state dict")):
        with pytest.raises(UserError, match=rf"{name}\.ckpt: .*{problem}"):
            weights.read_torch_file(tmp_path / f"{name}.ckpt")


def test_tensors_larger_than_their_file_are_not_made(tmp_path):
    for name, content in {
        "repeated": {"a": torch.zeros(1).expand(10**6, 10**6)},
        "sparse": {"a": torch.sparse_coo_tensor([[0], [0]], [1.0], (10**9, 10**9))},
    }.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError, match=f"{name}: a .* more numbers than the file holds"):
            weights.read_torch_file(tmp_path / name)
    torch.save({3: torch.zeros(2)}, tmp_path / "numbered")
    with pytest.raises(UserError, match="holds no state dict"):
        weights.read_torch_file(tmp_path / "numbered")
