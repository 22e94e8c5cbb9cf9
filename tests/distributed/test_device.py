"""Where things are computed."""

import pytest
import torch

from fiber_cli.distributed.device import device, device_named, prediction_device
from fiber_cli.errors import UserError


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
    with pytest.raises(UserError, match="device 'abacus' cannot be used"):
        prediction_device()


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "xla"])
def test_a_device_that_is_not_there_is_told(name):
    with pytest.raises(UserError, match="give cpu, cuda, cuda:1 … or mps"):
        device_named(name)
