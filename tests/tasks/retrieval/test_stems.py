"""Text stems come back as they were put, from memory or from a file."""

import os

import numpy as np
import pytest
import torch

from fiber_cli.errors import UserError
from fiber_cli.model.fusion import TextStem
from fiber_cli.tasks.retrieval.stems import TextStems


@pytest.mark.parametrize("memory", [0, 10**6])
def test_stems_come_back_wider_than_the_longest_of_them(tmp_path, memory):
    mask = torch.arange(7) < torch.tensor([[7], [2], [4]])
    stem = TextStem(torch.randn(3, 7, 5, dtype=torch.bfloat16), mask)
    stems = TextStems(6, 20, 5, memory=memory, folder=tmp_path)
    assert stems.spilled == (memory == 0)
    stems.put([4, 0, 2], stem)
    assert stems.lengths.tolist() == [2, 0, 4, 0, 7, 0]
    returned = stems.get(np.array([2, 0, 2]), torch.device("cpu"))
    assert returned.tokens.shape == (3, 8, 5)  # the next multiple of 8
    assert returned.tokens.dtype == torch.float32
    assert returned.mask.sum(1).tolist() == [4, 2, 4]
    assert torch.equal(returned.tokens[0, :4], stem.tokens[2, :4].float())
    assert torch.equal(returned.tokens[1, :2], stem.tokens[1, :2].float())
    assert not returned.tokens[0, 4:].any()
    assert not returned.tokens[1, 2:].any()
    assert not list(tmp_path.iterdir()), "the file has no name"


def test_a_full_disk_is_told(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"no room for .* text stems.*No space left"):
        TextStems(10, 10, 10, memory=0, folder=tmp_path)
