"""Where tensors are computed."""

import pytest
import torch

from fiber_cli.distributed.device import (
    device,
    device_named,
    local_rank,
    prediction_device,
    to_device,
)
from fiber_cli.errors import UserError

CPU = torch.device("cpu")


def test_a_process_takes_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_rank() == 3
    assert device() == torch.device("cuda", 3)
    monkeypatch.delenv("LOCAL_RANK")
    assert device() == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device() == CPU


def test_only_the_tensors_of_a_batch_are_moved():
    batch = {"pixels": torch.ones(2), "sample_ids": ["a", "b"], "truncated": 1}
    moved = to_device(batch, torch.device("meta"))
    assert moved["pixels"].is_meta
    assert (moved["sample_ids"], moved["truncated"]) == (["a", "b"], 1)
    assert not batch["pixels"].is_meta


def test_predictions_are_made_on_apples_gpu_and_ranks_train_without_it(monkeypatch):
    monkeypatch.delenv("FIBER_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert prediction_device() == torch.device("mps")
    assert device() == torch.device("cpu")  # gloo, by which ranks talk, knows no other
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert prediction_device() == torch.device("cpu")


def test_another_device_can_be_named(monkeypatch):
    monkeypatch.setenv("FIBER_DEVICE", "cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert prediction_device() == torch.device("cpu")
    monkeypatch.setenv("FIBER_DEVICE", "abacus")
    with pytest.raises(UserError, match="FIBER_DEVICE=abacus cannot be used"):
        prediction_device()


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "xla"])
def test_a_device_that_is_not_there_is_told(name):
    with pytest.raises(UserError, match="give cpu, cuda, cuda:1 … or mps"):
        device_named(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("meta", "tensors have no values there"),
        ("cpu:3", "all processors are one device, cpu"),
        ("cuda", "this machine has no GPU that PyTorch can use"),
        ("mps", "this machine has no GPU of Apple's that PyTorch can use"),
    ],
)
def test_where_nothing_can_be_computed_is_taken_or_told_at_length(monkeypatch, name, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError) as refused:
        device_named(name)
    assert str(refused.value) == f"device '{name}' cannot be used ({reason}); give cpu, cuda, cuda:1 … or mps"


def test_the_processors_are_no_device():
    assert device_named("cpu") == CPU
    assert device_named("cpu:0").type == "cpu"
